"""Which route a request takes: the policy, its options, what a request may choose instead, and the fallback."""

from __future__ import annotations

from typing import Final, NamedTuple

from spear.config import Config, Hedge, Mirror, OnExhausted, RouteMatch
from spear.config import Route as RouteConfig
from spear.ir import Operation

from ._facts import Facts
from .policies import Options

DEFAULT_POLICY: Final = {
    Operation.CHAT_COMPLETIONS: "peak_ewma",
    Operation.EMBEDDINGS: "weighted_round_robin",
    Operation.TEXT_TO_SPEECH: "weighted_round_robin",
    Operation.IMAGE_GENERATION: "priority",
    Operation.SPEECH_TO_TEXT: "least_inflight",
    Operation.REALTIME_VOICE: "least_inflight",
}
LEGACY_POLICY: Final = "weighted_random"
_NO_OPTIONS: Final = Options()
_OPTIONS: Final = ("within_level", "spill", "tau", "hash_key", "load_bound")


class Route(NamedTuple):
    """A route, resolved. `policy` of None = the default of the operation."""

    match: RouteMatch
    policy: str | None
    options: Options = _NO_OPTIONS
    allow_policies: tuple[str, ...] = ()
    fallback: tuple[str, ...] = ()
    mirror: Mirror | None = None
    filter: str | None = None
    hedge: Hedge | None = None
    continued: bool = False
    on_exhausted: OnExhausted | None = None
    """This and `max_attempts` of None = the host's."""
    max_attempts: int | None = None
    context_fallback: str | None = None

    def policy_for(self, operation: Operation) -> str:
        return self.policy or DEFAULT_POLICY[operation]


def routes_of(config: Config) -> tuple[Route, ...]:
    """In order, the last of them taking whatever no other takes."""
    default = LEGACY_POLICY if config.layout == "spearlet" else config.default_policy
    return (*(_resolve(route, default) for route in config.routes), Route(RouteMatch(), default))


def taus_of(config: Config) -> tuple[float, ...]:
    """Every τ that a route of `config` averages by."""
    return tuple(sorted({_NO_OPTIONS.tau, *(route.tau for route in config.routes if route.tau is not None)}))


def find_route(routes: tuple[Route, ...], facts: Facts) -> Route:
    """The first that matches; `model_class` is compared with the name that the request uses."""
    for route in routes:
        match = route.match
        if match.operation is not None and match.operation is not facts.operation:
            continue
        if match.model_class is None or match.model_class.strip() == facts.model:
            return route
    raise AssertionError("unreachable: the last route matches all")


def _resolve(route: RouteConfig, default: str | None) -> Route:
    written = {name: getattr(route, name) for name in _OPTIONS}
    options = _NO_OPTIONS._replace(**{name: value for name, value in written.items() if value is not None})
    fallback = tuple(name.strip() for name in route.fallback)
    return Route(
        route.match,
        route.policy or default,
        options,
        route.allow_policies,
        fallback,
        route.mirror,
        route.filter,
        route.hedge,
        route.continuation is not None,
        route.on_exhausted,
        route.max_attempts,
        None if route.context_fallback is None else route.context_fallback.strip(),
    )
