"""The live view of one configured backend instance: what a decision reads, without copying.

What is configured never changes within a generation. The load is the length of the set of turns that the router has
open there, so it cannot drift; while turns that were given up may still be cleaning up, the actor's own numbers count
too. Only the router writes to `turns`, `lingers` and the counters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from actors import Ref
from spear.backends import BackendMessage, Host, Key, Kind
from spear.config import InstanceConfig, RouterLimits
from spear.ir import Capabilities

NOT_STARTED: Final = "not_started"
MISSING_CREDENTIAL: Final = "missing_credential"
_LIMITS_OF_ADMISSION: Final = frozenset({"max_inflight", "max_queue"})


class Instance:
    __slots__ = (
        "answers_to", "capabilities", "checks_limits", "config", "failed", "features", "index", "keys", "kind",
        "kind_name", "lingers", "max_inflight", "max_queue", "name", "ops", "own_model", "priority", "reason", "ref",
        "refused", "room", "sent", "transports", "turns", "weight",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        config: InstanceConfig,
        kind: Kind,
        *,
        capabilities: Capabilities,
        limits: RouterLimits,
        keys: Iterable[Key] = (),
        reason: str | None = None,
    ) -> None:
        self.index = index
        self.name = config.name
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
        own = capabilities.limits
        self.max_inflight = limits.max_inflight if own.max_inflight is None else own.max_inflight
        self.max_queue = limits.max_queue if own.max_queue is None else own.max_queue
        self.room = self.max_inflight + self.max_queue
        self.keys = tuple(keys)
        self.reason = reason
        """Why this instance is out of service for the whole generation; None = it is not."""
        self.ref: Ref[BackendMessage] | None = None
        """Its actor, once somebody has started it."""
        self.turns: set[object] = set()
        self.lingers = False
        self.sent = self.failed = self.refused = 0

    def __repr__(self) -> str:
        return f"<Instance {self.name} {self.status} load={self.load}>"

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

    def key(self) -> Key | None:
        """The credential for the next attempt: the first that has a value."""
        return self.keys[0] if self.keys else None

    def host(self, *, debug_raw: bool) -> Host:
        """What its adapter is lent: its own secrets only, to keep them out of texts."""
        secrets = [key.secret for key in self.keys]
        if self.config.base_url is not None:
            secrets.append(self.config.base_url)
        return Host(debug_raw=debug_raw, redact=tuple(secrets))
