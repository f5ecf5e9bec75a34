"""Decisions made without a router, recorded as if their requests had ended at once."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from random import Random

from spear.config import DecisionsConfig
from spear.ir import RequestEnvelope
from spear.router import Desk, Generation, facts_of
from spear.router._decide import Plan
from spear.router.record import Replay, Tally, Trail, Unreadable, Verdict, read_records

EVERYTHING = DecisionsConfig(sample=1.0)


def desk_of(generation: Generation, seed: int = 1, settings: DecisionsConfig = EVERYTHING) -> Desk:
    desk = Desk(generation, rng=Random(seed))
    desk.decisions.tune(settings)
    return desk


def decided(
    desk: Desk, request: RequestEnvelope, now: float, exclude: frozenset[str] = frozenset(), *, panic: bool = False
) -> Plan:
    plan = desk.decide(facts_of(request), now, exclude, panic=panic, sampled=True)
    trail = Trail(sampled=True)
    trail.decided(plan.step)
    desk.decisions.close(trail, request.request_id, "ok", None, 0.0, 0)
    return plan


def log_of(desk: Desk) -> bytes:
    """What a file would hold."""
    lines, stated = [], set()
    for header, line in desk.decisions._ring:
        if header is not None and header not in stated:
            stated.add(header)
            lines.append(header)
        lines.append(line)
    return b"".join(lines)


def results(log: bytes, replay: Replay) -> Iterator[object]:
    for found in read_records(io.BytesIO(log), "log"):
        if isinstance(found, Unreadable):
            yield found
        elif (result := replay.take(*found)) is not None:
            yield result


def verdicts(log: bytes, replay: Replay | None = None) -> list[Verdict]:
    found = list(results(log, replay or Replay()))
    assert all(isinstance(each, Verdict) for each in found), found
    return found


def tally_of(given: Iterable[Verdict]) -> Tally:
    tally = Tally()
    for each in given:
        tally.add(each)
    return tally
