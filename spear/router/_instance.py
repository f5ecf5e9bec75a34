"""The live view of one configured backend instance: what a decision reads, without copying.

What is configured never changes within a generation, and `index` is given to no other instance of a later one. The
load is the length of the set of turns that the router has open there, so it cannot drift; while turns that were given
up may still be cleaning up, the actor's own numbers count too. Only the router writes to `turns`, `lingers` and the
counters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from actors import Ref
from spear.backends import BackendMessage, Host, Key, Kind
from spear.config import HealthConfig, InstanceConfig, RetryConfig, RouterLimits
from spear.ir import Capabilities, Limits
from spear.media import NO_MEDIA, MediaAccess

from ._facts import Facts, hash_name
from ._latency import DEFAULT_TAU_S, Estimate, Latency, Timing
from ._retry import Throttle
from .health import Health
from .keys import Pool
from .limits import RATES, Bounds

NOT_STARTED: Final = "not_started"
MISSING_CREDENTIAL: Final = "missing_credential"
_LIMITS_OF_ADMISSION: Final = frozenset({"max_inflight", "max_queue", *RATES})


def limits_of(kind: Limits, configured: Limits) -> Limits:
    """Those that are configured, and those of the kind where nothing is."""
    given = {name: value for name, value in configured if value is not None}
    return kind.model_copy(update=given) if given else kind


class Instance:
    __slots__ = (
        "answers_to", "bounds", "capabilities", "checks_limits", "config", "failed", "features", "health", "identity",
        "index", "keys", "keys_troubled", "kind", "kind_name", "latencies", "lingers", "max_inflight", "max_queue",
        "name", "ops", "own_model", "pool", "price", "priority", "reason", "ref", "refused", "room", "sent", "taus",
        "throttle", "transports", "turns", "weight",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        config: InstanceConfig,
        kind: Kind,
        *,
        capabilities: Capabilities,
        limits: RouterLimits,
        health: HealthConfig,
        retries: RetryConfig,
        keys: Iterable[Key] = (),
        reason: str | None = None,
        taus: Iterable[float] = (DEFAULT_TAU_S,),
    ) -> None:
        self.index = index
        self.name = config.name
        self.identity = hash_name(config.name) / 2.0**64
        self.config = config
        self.kind = kind
        self.kind_name = kind.name
        self.capabilities = capabilities
        self.ops = frozenset(capabilities.ops)
        self.features = frozenset(capabilities.features)
        self.transports = frozenset(capabilities.transports)
        self.checks_limits = any(
            value is not None for name, value in capabilities.limits if name not in _LIMITS_OF_ADMISSION
        )
        self.answers_to = frozenset(config.answers_to)
        self.own_model = (config.model or "").strip() or (config.model_class or "").strip()
        self.weight = config.weight
        self.priority = config.priority
        self.price = config.price
        own = capabilities.limits
        self.max_inflight = limits.max_inflight if own.max_inflight is None else own.max_inflight
        self.max_queue = limits.max_queue if own.max_queue is None else own.max_queue
        self.room = self.max_inflight + self.max_queue
        self.keys = tuple(keys)
        self.pool: Pool | None = None
        """Its keys with what is known of them, once a desk holds it; None where it needs no key."""
        self.keys_troubled = False
        """Some of them may be cooling or dead: only then there is anything to ask."""
        self.reason = reason
        """Why this instance is out of service for the whole generation; None = it is not."""
        self.ref: Ref[BackendMessage] | None = None
        """Its actor, once somebody has started it."""
        self.bounds: Bounds | None = None
        """What it is limited by beside its room; None = nothing."""
        self.turns: set[object] = set()
        self.lingers = False
        self.sent = self.failed = self.refused = 0
        self.taus = tuple(taus)
        self.latencies: dict[Timing, Latency] = {}
        self.health = Health(health)
        self.throttle = Throttle(retries)

    def adjust(self, config: InstanceConfig) -> None:
        """Take over what only the router reads: weight, priority, price, rates, probe. All else in `config` is as it
        was."""
        self.config = config
        limits = limits_of(self.kind.capabilities.limits, config.limits)
        self.capabilities = self.capabilities.model_copy(update={"limits": limits})
        self.weight = config.weight
        self.priority = config.priority
        self.price = config.price

    def tune(self, health: HealthConfig, retries: RetryConfig, taus: Iterable[float]) -> None:
        """Take over what all instances are judged and timed by. What is known of this one stays known."""
        self.health.tune(health)
        self.throttle.tune(retries)
        self.taus = tuple(taus)
        for each in self.latencies.values():
            each.tune(self.taus)

    def __repr__(self) -> str:
        return f"<Instance {self.name} {self.status} load={self.load}>"

    @property
    def group_name(self) -> str:
        """Whom it is compared with: those of the same model class."""
        return self.config.answers_to[0] if self.config.answers_to else ""

    @property
    def status(self) -> str:
        """That of its actor."""
        return NOT_STARTED if self.ref is None else self.ref.status

    @property
    def load(self) -> int:
        """Requests that are here now, running or queued, and those whose callers left but that still clean up."""
        ours = len(self.turns)
        if not self.lingers or self.ref is None:
            return ours
        theirs = self.ref.running + self.ref.queued
        if theirs <= ours:
            self.lingers = False  # whatever was left behind has ended
        return max(ours, theirs)

    def leave(self, turn: object) -> None:
        """`turn` was given up before its answer: its cleanup goes on and holds its slot."""
        self.turns.discard(turn)
        self.lingers = True

    @property
    def inflight(self) -> int:
        return min(self.load, self.max_inflight)

    @property
    def queued(self) -> int:
        return max(0, self.load - self.max_inflight)

    def limited(self, facts: Facts, now: float) -> str | None:
        """Why a rate or a budget leaves no room for such a request now; None = there is room."""
        return None if self.bounds is None else self.bounds.reason(facts, now, self._keys_from(now))

    def room_at(self, facts: Facts, now: float) -> float:
        """When that will be otherwise."""
        return now if self.bounds is None else self.bounds.ready_at(facts, now, self._keys_from(now))

    def _keys_from(self, now: float) -> dict[str, float] | None:
        return self.pool.usable_from(now) if self.keys_troubled and self.pool is not None else None

    def estimate(self, timing: Timing, tau: float) -> Estimate | None:
        """How long it takes for such calls; None = nobody knows."""
        found = self.latencies.get(timing)
        return None if found is None else found.estimate(tau)

    def latency(self, timing: Timing) -> Latency:
        """To be told how long such a call took. At most one for each operation, streamed and not."""
        found = self.latencies.get(timing)
        if found is None:
            found = self.latencies[timing] = Latency(self.taus)
        return found

    def spare_key(self, now: float) -> Key | None:
        """For what is sent beside requests, such as mirrors; None where it needs none, or none is well."""
        return None if self.pool is None else self.pool.spare(now)

    def keys_reason(self, now: float) -> str | None:
        """Why none of its keys may be used now; None = one may, or it needs none."""
        return self.pool.reason(now) if self.keys_troubled and self.pool is not None else None

    def keys_ready_at(self, now: float) -> float:
        """Where they all cool: when the first of them may be used again."""
        return now if self.pool is None else self.pool.ready_at(now)

    def host(self, *, debug_raw: bool, media: MediaAccess = NO_MEDIA) -> Host:
        """What its adapter is lent: its own secrets only, to keep them out of texts."""
        secrets = [key.secret for key in self.keys]
        if self.config.base_url is not None:
            secrets.append(self.config.base_url)
        return Host(debug_raw=debug_raw, media=media, redact=tuple(secrets))
