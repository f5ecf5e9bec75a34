"""What a configuration says, after parsing: frozen models, names of the field, seconds and bytes.

Nothing here reads files or the environment, and nothing here imports a backend. What only the kinds of backends can
judge (does the kind exist, can it do that operation) is checked when the registry is built, with the position kept in
`origin`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, get_args
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from spear.ir import Hosting, Json, Limits, Operation, Transport
from spear.secrets import Secret


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Origin(Section):
    """Where in which file a thing was written; `line` counts from 1, 0 = not from a file."""

    file: str = ""
    line: int = 0
    key: str = ""
    lines: tuple[tuple[str, int], ...] = Field(default=(), repr=False)
    """Of the keys written in this table."""

    def line_of(self, key: str) -> int:
        """The line of `key` in this table; that of the table where the key is not written there."""
        return dict(self.lines).get(key, self.line)

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file or "configuration"
        return f"{place}: {self.key}" if self.key else place


Seconds = Annotated[float, Field(gt=0)]
PolicyName = str
OnExhausted = Literal["wait", "panic", "fail"]
DegradationStep = Literal[
    "tools_by_prompt", "merge_system", "mask_to_text", "drop_timestamps", "strip_ssml", "default_voice",
    "parameters_dropped", "partial", "truncate_input",
]  # fmt: skip
ALL_STEPS: Final[tuple[DegradationStep, ...]] = get_args(DegradationStep)
MaxAttempts = Annotated[int, Field(ge=1, le=10)]


_Rate = Annotated[int, Field(ge=1)] | None


class KeyLimits(Section):
    """What one key may be used for, by all backends that share it; named as in the limits of a backend."""

    rpm: _Rate = None
    tpm: _Rate = None
    input_tpm: _Rate = None
    output_tpm: _Rate = None
    rpd: _Rate = None
    tpd: _Rate = None


class Credential(Section):
    """A key, by the name of where it comes from. `value` is None where the variable or file was missing when it was
    read."""

    name: str
    source: str
    """`env:NAME` or `file:PATH`: for people, in explanations."""
    value: Secret | None = None
    quota_group: Annotated[str, Field(min_length=1)] | None = None
    """Keys that draw on the same quota cool together."""
    weight: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Its share among the keys of a backend."""
    limits: KeyLimits = KeyLimits()


class Timeouts(Section):
    """The four clocks of an attempt, in seconds. `first_event`: from the send to the first event of a stream, or to
    the headers of an answer; None = automatic (60 s until the router has learned better). `total` bounds one
    attempt."""

    connect: Seconds = 3.0
    first_event: Seconds | None = None
    idle: Seconds = 30.0
    total: Seconds = 600.0


class Probe(Section):
    """A small request of the router's own, where callers' requests do not show how the instance is."""

    every: Annotated[float, Field(ge=0.1)] = 30.0
    timeout: Seconds = 5.0


_Amount = Annotated[float, Field(ge=0, le=1e12)]


class Price(Section):
    """In the host's currency: per million tokens or characters, per image, per minute of audio that is heard."""

    input: _Amount = 0.0
    output: _Amount = 0.0
    characters: _Amount = 0.0
    image: _Amount = 0.0
    audio_minute: _Amount = 0.0

    @property
    def beside_tokens(self) -> bool:
        """Whether anything but tokens has a price."""
        return bool(self.characters or self.image or self.audio_minute)

    def of_others(self, characters: float, images: float, audio_seconds: float) -> float:
        """What that costs beside its tokens."""
        return characters * self.characters / 1e6 + images * self.image + audio_seconds * self.audio_minute / 60


class InstanceConfig(Section):
    """One backend instance. `ops`, `features` and `transports` of None = what the kind can do; given = literal."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    kind: str
    hosting: Hosting
    base_url: Secret | None = None
    model: str | None = None
    model_class: str | None = None
    credentials: tuple[str, ...] = ()
    ops: tuple[Operation, ...] | None = None
    features: tuple[str, ...] | None = None
    transports: tuple[Transport, ...] | None = None
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    limits: Limits = Limits()
    price: Price | None = None
    timeouts: Timeouts = Timeouts()
    allow_plaintext: bool = False
    stream_usage: bool = True
    region: str | None = None
    probe: Probe | None = None
    options: dict[str, Json] = {}
    """What only this kind knows; the kind validates it."""
    origin: Origin = Origin()

    @property
    def answers_to(self) -> tuple[str, ...]:
        """The model names that bind this instance; empty = unbound."""
        return tuple(name for name in ((self.model_class or "").strip(), (self.model or "").strip()) if name)


class SkippedInstance(Section):
    """An instance that the legacy layout leaves out, or that cannot be used, and why: shown by `spear backends`."""

    name: str
    kind: str
    reason: str
    detail: str
    origin: Origin = Origin()


class FilterContent(Section):
    """How much of what a request says a filter gets to see."""

    max_bytes: Annotated[int, Field(ge=1, le=1_048_576)] = 4096


class FilterConfig(Section):
    """An external filter: asked before a backend is chosen, where a route names it."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    kind: Literal["http", "wasm", "python"]
    url: Secret | None = None
    path: str | None = None
    """Of a WebAssembly module."""
    credential: str | None = None
    hosting: Hosting = Hosting.REMOTE
    allow_plaintext: bool = False
    timeout: Annotated[float, Field(gt=0, le=60)] = 0.05
    on_error: Literal["open", "closed"] = "open"
    """What becomes of a request whose filter failed: it goes on, or it is refused."""
    content: FilterContent | None = None
    max_reweight: Annotated[float, Field(ge=1, le=1000)] = 10.0
    """How many times its configured weight an instance may be given."""
    max_inflight: Annotated[int, Field(ge=1, le=4096)] = 32
    """Calls at a time; more wait, within their timeout."""
    origin: Origin = Origin()


class RouteMatch(Section):
    """An absent key matches all."""

    operation: Operation | None = None
    model_class: str | None = None


class Hedge(Section):
    """A second attempt at another instance where the first one takes long."""

    max_extra_load: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Hedges for each request that could be hedged, at most."""
    max_attempts: Annotated[int, Field(ge=2, le=5)] = 2
    """At a time, the first one included."""
    delay: Seconds | Annotated[str, Field(pattern=r"^p[0-9]{1,2}(\.[0-9]{1,3})?$")] | None = None
    """How long is long: seconds, or a percentile of what the instance takes. None = by `max_extra_load`."""


class Mirror(Section):
    """Send a part of a route's requests once more, to the backend `to`. With `compare`, a record of each is kept."""

    to: Annotated[str, Field(min_length=1, max_length=128)]
    percent: Annotated[float, Field(ge=0, le=100)]
    compare: bool = True


class Route(Section):
    """First match wins. `fallback` names model classes tried, in order, when the requested one has no candidate
    left."""

    match: RouteMatch = RouteMatch()
    policy: PolicyName | None = None
    allow_policies: tuple[PolicyName, ...] = ()
    fallback: tuple[str, ...] = ()
    context_fallback: str | None = None
    """The model class for requests that are longer than the one asked for reads."""
    filter: str | None = None
    """The external filter that is asked first."""
    within_level: PolicyName | None = None
    """For `priority`: the policy that orders the instances of one level."""
    spill: Literal["strict", "proportional"] | None = None
    """For `priority`: when the next level is used."""
    tau: Annotated[float, Field(ge=0.1, le=86_400)] | None = None
    """For policies that go by latency: the time in which the past fades, in seconds."""
    hash_key: tuple[Literal["session", "task", "prompt"], ...] | None = None
    """For `consistent_hash`: what keeps requests together, the first of these that a request has."""
    load_bound: Annotated[float, Field(gt=1, le=100)] | None = None
    """For `consistent_hash`: how many times its share of what is running an instance may have."""
    on_exhausted: OnExhausted | None = None
    """None = the host's."""
    max_attempts: MaxAttempts | None = None
    """None = the host's."""
    hedge: Hedge | None = None
    continuation: Literal["prefill"] | None = None
    """For chat streams that break off after they have begun."""
    mirror: Mirror | None = None
    origin: Origin = Origin()


class RouterLimits(Section):
    """Bounds of the router itself."""

    max_requests: Annotated[int, Field(ge=1)] = 8192
    """Requests in flight in all; more wait in the mailbox (`max_waiting`), then are `overloaded`."""
    max_waiting: Annotated[int, Field(ge=0)] = 1024
    max_attempts: MaxAttempts = 3
    default_timeout_s: Seconds = 600.0
    max_inflight: Annotated[int, Field(ge=1)] = 64
    """Of an instance whose own limits do not say."""
    max_queue: Annotated[int, Field(ge=0)] = 64
    commit_buffer_events: Annotated[int, Field(ge=1)] = 64
    commit_buffer_bytes: Annotated[int, Field(ge=1)] = 262_144


class HealthConfig(Section):
    """When an instance is left out for a while, and how it comes back: breakers, outlier ejection, slow start."""

    enabled: bool = True
    failures: Annotated[int, Field(ge=1)] = 5
    """In a row: the breaker opens."""
    min_success: Annotated[float, Field(ge=0, le=1)] = 0.8
    min_requests: Annotated[int, Field(ge=1)] = 5
    window_s: Seconds = 30.0
    open_s: Seconds = 5.0
    open_max_s: Seconds = 300.0
    probe_timeout_s: Seconds = 30.0
    close_after: Annotated[int, Field(ge=1)] = 2
    eject_failures: Annotated[float, Field(gt=0, le=1)] = 0.85
    eject_min_requests: Annotated[int, Field(ge=1)] = 10
    eject_min_hosts: Annotated[int, Field(ge=2)] = 2
    eject_deviation: Annotated[float, Field(gt=0)] = 1.9
    eject_deviation_hosts: Annotated[int, Field(ge=3)] = 6
    eject_s: Seconds = 30.0
    eject_max_s: Seconds = 300.0
    eject_max_share: Annotated[float, Field(ge=0, le=0.5)] = 0.5
    slow_start_s: Annotated[float, Field(ge=0)] = 30.0
    max_wait_s: Annotated[float, Field(ge=0)] = 10.0
    """Where nobody is well and `on_exhausted` is `wait`."""


class RetryConfig(Section):
    """When the same instance is asked again, and the bounds of that."""

    per_instance: Annotated[int, Field(ge=1, le=10)] = 2
    """Sends of one request to one instance; 1 = never again."""
    backoff_s: Seconds = 0.5
    backoff_max_s: Seconds = 5.0
    retry_after_max_s: Seconds = 60.0
    budget_min: Annotated[int, Field(ge=0)] = 3
    budget_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    throttle_tokens: Annotated[int, Field(ge=1)] = 10


class KeysConfig(Section):
    """When a key is left out for a while, and how it comes back."""

    enabled: bool = True
    cool_s: Seconds = 1.0
    cool_max_s: Seconds = 60.0
    revive_s: Seconds = 600.0


class RedisConfig(Section):
    """Where limits and budgets are shared with other processes."""

    url: Secret
    source: str = ""
    """`env:NAME`, `file:PATH` or `url`: for people."""
    prefix: Annotated[str, Field(max_length=64)] = "spear:"
    lease_s: Annotated[float, Field(ge=0.2, le=60)] = 2.0
    node: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Another name for each process; None = one by chance."""
    nodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many processes to reckon with at least, where Redis does not say."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The address, and a password in it."""
        password = urlsplit(self.url.reveal()).password
        return (self.url, Secret(password), Secret(unquote(password))) if password else (self.url,)


class MirrorLimits(Section):
    """What all mirrors together may do, and what is kept of them."""

    max_inflight: Annotated[int, Field(ge=1, le=10_000)] = 8
    max_waiting: Annotated[int, Field(ge=0, le=10_000)] = 32
    timeout_s: Seconds = 120.0
    """Of one mirrored request, the wait for its primary included."""
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 60
    max_cost_per_hour: Annotated[float, Field(gt=0)] | None = None
    max_payload_bytes: Annotated[int, Field(ge=1)] = 1_048_576
    """Larger requests are not mirrored."""
    path: Path | None = None
    """The file of records; None = only in memory."""
    max_bytes: Annotated[int, Field(ge=4096)] = 67_108_864
    files: Annotated[int, Field(ge=1, le=100)] = 4
    keep: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    """The latest records in memory."""
    content: bool = False
    """Keep the beginning of prompts and answers in the records."""
    content_chars: Annotated[int, Field(ge=1, le=100_000)] = 500


class DecisionsConfig(Section):
    """Which of the router's decisions are recorded, and where. Those of failed requests always are."""

    path: Annotated[str, Field(min_length=1)] | None = None
    """None = only the latest ones are kept, in memory."""
    sample: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The share of requests whose decisions are recorded whatever becomes of them."""
    max_bytes: Annotated[int, Field(ge=65_536)] = 67_108_864
    """Of one file."""
    files: Annotated[int, Field(ge=1, le=1000)] = 4
    """The one that is written, and those it was before."""


GuestFamily = Literal["emb", "img", "asr", "tts", "media"]


class GuestLimits(Section):
    """Bounds of guest executions."""

    max_executions: Annotated[int, Field(ge=1, le=12_000)] = 1000
    timeout_s: Seconds | None = 300.0
    memory_bytes: Annotated[int, Field(ge=65_536, le=4_294_967_296)] = 268_435_456
    module_cache: bool = True
    families: tuple[GuestFamily, ...] = ("emb", "img", "asr", "tts", "media")
    """Of the hostcalls beyond chat, those that guests may use; the others say that they are switched off."""


class S3Config(Section):
    """A bucket behind the local files of the media store."""

    bucket: Annotated[str, Field(min_length=3, max_length=255, pattern=r"^[A-Za-z0-9._-]+$")]
    endpoint_url: Secret | None = None
    """None = Amazon's."""
    region: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    prefix: Annotated[str, Field(max_length=256)] = "spear/"
    access_key: Secret | None = None
    secret_key: Secret | None = None
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return tuple(each for each in (self.endpoint_url, self.access_key, self.secret_key) if each)


class MediaConfig(Section):
    """The media store: where objects are kept, how long, how much, and what may be fetched into it."""

    path: Path | None = None
    """A folder that outlives the process; None = a private one that goes with the runtime."""
    max_object_bytes: Annotated[int, Field(ge=1, le=1_073_741_824)] = 67_108_864
    max_task_bytes: Annotated[int, Field(ge=1)] = 536_870_912
    max_task_objects: Annotated[int, Field(ge=1, le=65_536)] = 1024
    max_bytes: Annotated[int, Field(ge=1)] = 4_294_967_296
    """Of all objects."""
    max_objects: Annotated[int, Field(ge=1, le=1_000_000)] = 65_536
    max_inline_bytes: Annotated[int, Field(ge=0, le=1_048_576)] = 65_536
    """Larger inline data of a guest is stored."""
    expire_s: Seconds = 86_400.0
    allow_origins: tuple[str, ...] = ()
    """From where `http_url` references may be fetched."""
    allow_private_origins: tuple[str, ...] = ()
    """The same, and they may lie in private networks, and speak plain HTTP."""
    allow_plaintext: bool = False
    """Let `allow_origins` have some with plain HTTP."""
    fetch_timeout_s: Seconds = 60.0
    fetch_idle_s: Seconds = 10.0
    s3: S3Config | None = None


class TaskConfig(Section):
    """Who runs: the rights of the guests that run under this id. None = everything the host has."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    config: dict[str, str] = {}
    allow_operations: tuple[Operation, ...] | None = None
    allow_backends: tuple[str, ...] | None = None
    origin: Origin = Origin()


class McpStdio(Section):
    """A server that is a process of ours. `env` is the whole of what it gets to see of an environment."""

    command: Annotated[str, Field(min_length=1)]
    args: tuple[str, ...] = ()
    env: dict[str, Secret] = {}
    env_from: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Names of the host's variables that it gets, too; `*` stands for any run of characters."""
    cwd: str | None = None


class McpHttp(Section):
    """A server behind streamable HTTP."""

    url: Secret
    headers: dict[str, Secret] = {}
    auth_ref: str | None = None
    """The credential whose value is sent as a bearer token."""
    hosting: Hosting = Hosting.REMOTE
    allow_plaintext: bool = False


class McpBudgets(Section):
    """What one server may take. 0 = the host's default."""

    tool_timeout_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 0
    max_concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests to it at a time; more wait, within their timeout."""
    max_tool_output_bytes: Annotated[int, Field(ge=0)] = 0


class McpApproval(Section):
    """Read, without effect."""

    default_policy: str | None = None
    per_tool: dict[str, str] = {}


class McpServer(Section):
    """A server whose tools chat sessions may be given."""

    server_id: Annotated[str, Field(min_length=1, max_length=128)]
    display_name: str = ""
    transport: Literal["stdio", "streamable_http"]
    stdio: McpStdio | None = None
    http: McpHttp | None = None
    tool_namespace: str | None = None
    """Read, without effect."""
    allowed_tools: tuple[str, ...] = ()
    """Patterns with `*` and `?`; without any, none of its tools can be used."""
    approval_policy: McpApproval | None = None
    budgets: McpBudgets = McpBudgets()
    missing: tuple[str, ...] = ()
    """Variables of the host without which it cannot be started."""
    secrets: tuple[Secret, ...] = ()
    """What must not appear in what is told of it."""
    origin: Origin = Origin()


class McpConfig(Section):
    """MCP servers: those written here, and those of a folder with a file for each."""

    path: str | None = None
    start: Literal["first_use", "at_once"] = "first_use"
    servers: tuple[McpServer, ...] = ()
    sources: tuple[str, ...] = ()
    """What was read under `path`, that folder first."""


class BudgetMatch(Section):
    """Which attempts a budget pays for; an absent key matches all."""

    operation: Operation | None = None
    model_class: str | None = None
    backend: str | None = None
    task: str | None = None


class Budget(Section):
    """So much in any window, for each of those that `per` tells apart. At least one of `requests`, `tokens` and `cost`
    is given; what is beyond one of them is beyond the budget."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    window: Seconds
    per: Literal["all", "task", "guest", "backend", "key"] = "all"
    match: BudgetMatch = BudgetMatch()
    requests: Annotated[int, Field(ge=1)] | None = None
    tokens: Annotated[int, Field(ge=1)] | None = None
    cost: Annotated[float, Field(gt=0)] | None = None
    """In the currency of the prices."""
    soft: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of it at which requests go to `degrade_to` (None: 0.8), or without one, at which it is said."""
    degrade_to: str | None = None
    """A model class."""
    origin: Origin = Origin()

    def pays(self, instance: InstanceConfig) -> bool:
        """Whether attempts at `instance` can be paid from it."""
        match = self.match
        if match.backend is not None and match.backend.strip() != instance.name:
            return False
        return match.model_class is None or match.model_class.strip() in instance.answers_to


class OllamaDiscovery(Section):
    """Which models of an Ollama server become backends of their own."""

    enabled: bool = False
    scope: Literal["serving", "installed"] = "serving"
    base_url: Secret | None = None
    allow_remote: bool = False
    timeout: Annotated[float, Field(gt=0, le=60)] = 1.5
    max_models: Annotated[int, Field(ge=0)] = 32
    allow_models: tuple[str, ...] = ()
    deny_models: tuple[str, ...] = ()
    name_prefix: Annotated[str, Field(max_length=64)] = "ollama/"
    name_conflict: Literal["skip", "overwrite"] = "skip"
    default_weight: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    default_priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    default_ops: tuple[Operation, ...] | None = None
    default_features: tuple[str, ...] | None = None
    default_transports: tuple[Transport, ...] | None = None


class Discovery(Section):
    """Models that are found, not configured."""

    ollama: OllamaDiscovery = OllamaDiscovery()


class LogConfig(Section):
    level: Literal["debug", "info", "warning", "error"] = "warning"
    format: Literal["console", "json"] = "console"


class Config(Section):
    """A whole configuration. `layout` tells which of the two TOML layouts it came from (`spear` for a dict);
    `embedded` is what holds without any: of its backends, those that cannot work here are left out."""

    layout: Literal["spear", "spearlet", "embedded"] = "spear"
    default_policy: PolicyName | None = None
    allow_degradation: tuple[DegradationStep, ...] | None = None
    """What may be done less well than asked, for requests that allow it, too; None = all steps."""
    on_exhausted: OnExhausted = "wait"
    """What becomes of a request for which nobody is well."""
    debug_raw: bool = False
    """Keep the backend's own JSON in `response.raw`."""
    tracing: bool = False
    """Make OpenTelemetry spans of requests; where they go is the program's."""
    credentials: tuple[Credential, ...] = ()
    backends: tuple[InstanceConfig, ...] = ()
    skipped: tuple[SkippedInstance, ...] = ()
    routes: tuple[Route, ...] = ()
    filters: tuple[FilterConfig, ...] = ()
    tasks: tuple[TaskConfig, ...] = ()
    budgets: tuple[Budget, ...] = ()
    router: RouterLimits = RouterLimits()
    health: HealthConfig = HealthConfig()
    retries: RetryConfig = RetryConfig()
    keys: KeysConfig = KeysConfig()
    redis: RedisConfig | None = None
    mirrors: MirrorLimits = MirrorLimits()
    decisions: DecisionsConfig = DecisionsConfig()
    guests: GuestLimits = GuestLimits()
    mcp: McpConfig = McpConfig()
    media: MediaConfig = MediaConfig()
    log: LogConfig = LogConfig()
    discovery: Discovery = Discovery()
    discovered: tuple[str, ...] = ()
    """Of the backends, those that discovery found."""
    warnings: tuple[str, ...] = ()
    origin: Origin = Origin()

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Every secret that this configuration holds: what must not appear in a log or an error."""
        keys = (credential.value for credential in self.credentials)
        addresses = (backend.base_url for backend in self.backends)
        urls = (each.url for each in self.filters)
        shared = () if self.redis is None else self.redis.secrets
        stored = () if self.media.s3 is None else self.media.s3.secrets
        tools = (secret for each in self.mcp.servers for secret in each.secrets)
        ollama = () if self.discovery.ollama.base_url is None else (self.discovery.ollama.base_url,)
        return tuple(secret for secret in (*keys, *addresses, *urls, *ollama, *shared, *stored, *tools) if secret)
