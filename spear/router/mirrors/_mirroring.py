"""What outlives the mirrors' actor: its address, its counters, its purse, and the latest records.

The router hands a request over here, in passing: it draws, and puts a message into a mailbox if there is room for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from actors import ActorStopped, MailboxFull, Ref
from spear.config import Mirror
from spear.ir import RequestEnvelope
from spear.router._draws import Draws
from spear.router._facts import Facts
from spear.router._leg import Leg
from spear.router._registry import Generation
from spear.router._routes import find_route
from spear.telemetry import Counters

from ._counts import MirrorCounts
from ._purse import Purse
from ._record import MirrorRecord
from ._side import NotMirrored, Primary

_SALT: Final = 0x6D6972726F72
_NOT_MIRRORED: Final = NotMirrored()


@dataclass(frozen=True, slots=True, eq=False)
class MirrorRequest:
    """Mirror this one; what becomes of its primary is to be learned from `primary`."""

    request: RequestEnvelope
    facts: Facts
    mirror: Mirror
    primary: Primary


class Mirroring:
    """`ref` is set once the actor has been started."""

    ref: Ref[MirrorRequest]

    def __init__(self, counters: Counters | None = None) -> None:
        self.counts = MirrorCounts(counters)
        self.purse = Purse()
        self.records: deque[MirrorRecord] = deque()

    def offer(self, request: RequestEnvelope, leg: Leg, generation: Generation) -> Primary:
        """`leg` has committed or answered. Never waits and never raises; the answer is to be told how `leg` ends."""
        facts = leg.plan.facts
        mirror = find_route(generation.routes, facts).mirror
        if mirror is None or mirror.to == leg.instance.name or not is_drawn(leg.plan.seed, mirror.percent):
            return _NOT_MIRRORED
        if facts.payload_bytes > generation.config.mirrors.max_payload_bytes:
            self.counts.drop("too_large")
            return _NOT_MIRRORED
        primary = Primary(leg)
        try:
            self.ref.tell_nowait(MirrorRequest(request, facts, mirror, primary))
        except MailboxFull:
            self.counts.drop("full")
        except ActorStopped:
            self.counts.drop("stopped")
        else:
            return primary
        return _NOT_MIRRORED

    def keep(self, record: MirrorRecord, most: int) -> None:
        self.records.append(record)
        while len(self.records) > most:
            self.records.popleft()

    def observe(self, now: float) -> Mapping[str, object]:
        return {**self.counts.observe(), **self.purse.observe(now), "records": len(self.records)}


def is_drawn(seed: int, percent: float) -> bool:
    """From the decision's own seed, so that it repeats with it."""
    return Draws(seed ^ _SALT).random() * 100 < percent
