"""A generation: one configuration, checked against the kinds of backends and resolved into live instances.

Building one starts nothing. Everything that is wrong is collected and raised at once, with file, line and key. What
`spear.config` cannot know, because it imports no backend, is checked here: kinds, operations, policies, names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from actors import Spec
from spear.backends import BackendMessage, Key, Kind, backend_spec, find_kind
from spear.config import Config, FilterConfig, InstanceConfig, Origin, SkippedInstance, TaskConfig
from spear.config import Route as RouteConfig
from spear.egress import check_base_url
from spear.ir import Capabilities, ConfigError, Operation, Problem, RoutingError
from spear.media import NO_MEDIA, MediaAccess

from ._external import ExternalFilter
from ._filter import Remembered
from ._instance import MISSING_CREDENTIAL, Instance, limits_of
from ._probe import why_no_probe
from ._routes import Route, routes_of, taus_of
from .policies import POLICIES, WITHIN_LEVEL


@dataclass(frozen=True, slots=True)
class Generation:
    """`instances` are live views, which the next generation shares as far as they stay; all the rest never changes."""

    number: int
    config: Config
    instances: tuple[Instance, ...]
    routes: tuple[Route, ...]
    skipped: tuple[SkippedInstance, ...] = ()
    issued: int = 0
    """How many indexes this generation and those before it have given out: the next new instance gets this one."""
    ports: dict[str, ExternalFilter] = field(default_factory=dict, compare=False, repr=False)
    """Who asks the filters of `config`, by name; filled by their owner before the generation holds."""
    by_name: Mapping[str, Instance] = field(init=False)
    filters: Mapping[str, FilterConfig] = field(init=False)
    tasks: Mapping[str, TaskConfig] = field(init=False)
    hedged: bool = field(init=False)
    """Whether any route hedges."""
    continued: bool = field(init=False)
    """Whether any route continues streams."""
    routed_attempts: bool = field(init=False)
    """Whether any route has a `max_attempts` of its own."""
    remembered: Remembered = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {each.name: each for each in self.instances})
        object.__setattr__(self, "hedged", any(route.hedge is not None for route in self.routes))
        object.__setattr__(self, "continued", any(route.continued for route in self.routes))
        routed = any(route.max_attempts is not None for route in self.routes)
        object.__setattr__(self, "routed_attempts", routed)
        object.__setattr__(self, "remembered", Remembered(self.instances))
        object.__setattr__(self, "filters", {each.name: each for each in self.config.filters})
        object.__setattr__(self, "tasks", {task.id: task for task in self.config.tasks})

    def spec(self, instance: Instance, *, drain: float = 0.0, media: MediaAccess = NO_MEDIA) -> Spec[BackendMessage]:
        """How a supervisor starts the actor of `instance`; its ref then goes to `instance.ref`."""
        return backend_spec(
            instance.kind,
            instance.config,
            instance.host(debug_raw=self.config.debug_raw, media=media),
            limits=instance.capabilities.limits,
            max_inflight=instance.max_inflight,
            max_queue=instance.max_queue,
            drain=drain,
        )


def build_generation(config: Config, *, number: int = 1, find_kind: Callable[[str], Kind] = find_kind) -> Generation:
    """Imports the kinds that the configuration names. Raises `ConfigError` with all problems.

    An instance whose credential has no value stays, with the reason `missing_credential`. In the legacy layout an
    unknown kind, and an operation that the kind does not do, leave the instance or the operation out, as that layout
    demands."""
    build = _Build(config, find_kind)
    instances = build.instances()
    build.check_routes()
    build.check_tasks()
    build.check_filters()
    if build.problems:
        raise ConfigError(build.problems)
    skipped = (*config.skipped, *build.skipped)
    return Generation(number, config, instances, routes_of(config), skipped, issued=len(instances))


class _Build:
    def __init__(self, config: Config, find_kind: Callable[[str], Kind]) -> None:
        self.config = config
        self.find_kind = find_kind
        self.legacy = config.layout == "spearlet"
        self.embedded = config.layout == "embedded"
        self.taus = taus_of(config)
        self.problems: list[Problem] = []
        self.skipped: list[SkippedInstance] = []
        self.credentials = {each.name: each for each in config.credentials}
        self.made: tuple[Instance, ...] = ()
        self.names = {each.name for each in config.backends} | {each.name for each in config.skipped}

    def instances(self) -> tuple[Instance, ...]:
        made: list[Instance] = []
        seen: set[str] = set()
        for each in self.config.backends:
            if each.name in seen:
                self.wrong(each.origin, "name", f"{each.name!r} is the name of another backend, too")
                continue
            seen.add(each.name)
            instance = self.instance(len(made), each)
            if instance is not None:
                made.append(instance)
        self.made = tuple(made)
        return self.made

    def instance(self, index: int, config: InstanceConfig) -> Instance | None:
        try:
            kind = self.find_kind(config.kind)
        except RoutingError as error:
            if self.legacy or self.embedded:
                self.skip(config, "unknown_kind" if self.legacy else "not_enabled", error.error.message)
            else:
                self.wrong(config.origin, "kind", error.error.message)
            return None
        if self.embedded:
            try:
                kind.check(config)
            except ValueError as error:
                self.skip(config, "cannot_work", str(error))
                return None
        capabilities = self.capabilities(config, kind.capabilities)
        keys = self.keys(config)
        self.check_instance(config, kind)
        if capabilities is None:
            return None
        reason = MISSING_CREDENTIAL if config.credentials and not keys else None
        whole = self.config
        made = Instance(
            index, config, kind, capabilities=capabilities, limits=whole.router, health=whole.health,
            retries=whole.retries, keys=keys, reason=reason, taus=self.taus,
        )  # fmt: skip
        self.check_probe(made)
        return made

    def capabilities(self, config: InstanceConfig, kind: Capabilities) -> Capabilities | None:
        ops = kind.ops if config.ops is None else config.ops
        beyond = [op for op in ops if op not in kind.ops]
        if self.legacy:
            ops = tuple(op for op in ops if op in kind.ops)
            if not ops:
                self.skip(config, "no_operations", f"none of its ops is one that {config.kind} does")
                return None
        elif beyond:
            known = ", ".join(op.value for op in kind.ops)
            names = ", ".join(op.value for op in beyond)
            self.wrong(config.origin, "ops", f"{config.kind} does not do {names}; it does {known}")
        elif not ops:
            self.wrong(config.origin, "ops", "empty; leave it out for all that the kind does")
        return Capabilities(
            ops=ops,
            features=kind.features if config.features is None else config.features,
            transports=kind.transports if config.transports is None else config.transports,
            limits=limits_of(kind.limits, config.limits),
            hosting=config.hosting,
        )

    def keys(self, config: InstanceConfig) -> list[Key]:
        keys = []
        for name in config.credentials:
            credential = self.credentials.get(name)
            if credential is None:
                self.wrong(config.origin, "credentials", _no_such("credential", name, self.credentials))
            elif credential.value is not None:
                keys.append(Key(name, credential.value))
        return keys

    def check_instance(self, config: InstanceConfig, kind: Kind) -> None:
        try:
            if config.base_url is not None:
                check_base_url(config.base_url.reveal(), hosting=config.hosting, allow_plaintext=config.allow_plaintext)
        except ValueError as error:
            self.wrong(config.origin, "base_url", str(error))
            return
        try:
            kind.check(config)
        except ValueError as error:
            self.wrong(config.origin, "", str(error))
        except Exception as bug:  # noqa: BLE001 -- a kind may be anybody's; one that is broken is one more problem
            self.wrong(config.origin, "", f"the check of kind {config.kind!r} failed: {type(bug).__name__}")

    def check_probe(self, instance: Instance) -> None:
        if instance.config.probe is None:
            return
        problem = why_no_probe(instance.capabilities.ops, instance.own_model, instance.max_inflight)
        if problem is None and not self.config.health.enabled:
            problem = "probes are for breakers, which `health.enabled = false` turns off; take it out"
        if problem is not None:
            self.wrong(instance.config.origin, "probe", problem)

    def check_routes(self) -> None:
        self.check_policy(self.config.origin, "default_policy", self.config.default_policy, POLICIES)
        for route in self.config.routes:
            self.check_policy(route.origin, "policy", route.policy, POLICIES)
            self.check_policy(route.origin, "within_level", route.within_level, WITHIN_LEVEL)
            for name in route.allow_policies:
                self.check_policy(route.origin, "allow_policies", name, POLICIES)
            self.check_fallback(route)
            self.check_mirror(route)

    def check_policy(self, origin: Origin, key: str, name: str | None, known: Iterable[str]) -> None:
        if name is not None and name not in known:
            self.wrong(origin, key, _no_such("policy", name, known))

    def check_fallback(self, route: RouteConfig) -> None:
        models = {name for each in self.config.backends for name in each.answers_to}
        for key, names in (("fallback", route.fallback), ("context_fallback", (route.context_fallback,))):
            for name in names:
                if name is not None and name.strip() not in models:
                    self.wrong(route.origin, key, _no_such("model class", name, models))

    def check_mirror(self, route: RouteConfig) -> None:
        """What a route's mirror could never do. Whether its backend exists is known where it was read from a file."""
        mirror = route.mirror
        if mirror is None:
            return
        to = next((each for each in self.made if each.name == mirror.to), None)
        operation = route.match.operation
        if to is None:
            if mirror.to not in self.names:
                self.wrong(route.origin, "mirror", "to: " + _no_such("backend", mirror.to, self.names))
        elif operation is Operation.REALTIME_VOICE:
            self.wrong(route.origin, "mirror", "a session of realtime voice cannot be mirrored")
        elif operation is not None and operation not in to.ops:
            does = ", ".join(sorted(to.ops))
            self.wrong(route.origin, "mirror", f"to: {to.name} does not do {operation.value}; it does {does}")
        elif to.room < 2:
            message = "takes one request at a time and lets none wait; a mirror has to leave half of the room to others"
            self.wrong(route.origin, "mirror", f"to: {to.name} {message}: make max_inflight or max_queue larger")
        elif to.price is None and self.config.mirrors.max_cost_per_hour is not None:
            message = "has no price, so that mirrors.max_cost_per_hour cannot be kept: give it one"
            self.wrong(route.origin, "mirror", f"to: {to.name} {message}")

    def check_tasks(self) -> None:
        for task in self.config.tasks:
            for name in task.allow_backends or ():
                if name not in self.names:
                    self.wrong(task.origin, "allow_backends", _no_such("backend", name, self.names))

    def check_filters(self) -> None:
        names = {each.name for each in self.config.filters}
        for route in self.config.routes:
            if route.filter is not None and route.filter not in names:
                self.wrong(route.origin, "filter", _no_such("filter", route.filter, names))
        for each in self.config.filters:
            try:
                if each.url is not None:
                    check_base_url(each.url.reveal(), hosting=each.hosting, allow_plaintext=each.allow_plaintext)
            except ValueError as error:
                self.wrong(each.origin, "url", str(error))

    def wrong(self, origin: Origin, key: str, message: str) -> None:
        path = ".".join(part for part in (origin.key, key) if part)
        line = origin.line_of(key) if key else origin.line
        self.problems.append(Problem(origin.file, line, path, message))

    def skip(self, config: InstanceConfig, reason: str, detail: str) -> None:
        self.skipped.append(
            SkippedInstance(name=config.name, kind=config.kind, reason=reason, detail=detail, origin=config.origin)
        )


def _no_such(what: str, name: str, known: Iterable[str]) -> str:
    return f"there is no {what} {name!r}; there are: {', '.join(sorted(known)) or 'none'}"
