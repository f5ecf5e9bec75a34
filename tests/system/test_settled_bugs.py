"""A bug of the router's own, anywhere in a request: what was reserved and held is given back."""

from __future__ import annotations

import pydoc
from typing import Any

import pytest
import trio

import spear
from tests.system.kit import nothing_left
from tests.system.ledger import Ledgers, ask, limited, read, settled

PLACES = [
    "_desk.decide",
    "_desk.facts_of",
    "_course.send_model",
    "_course.Leg.limit",
    "_attempts.settle_leg",
    "_attempts.settle_usage",
    "_attempts._attempt",
    "_attempts.ok_response",
    "_attempts.backend_info",
    "_course.jitter_of",
    "_attempts.Attempts.answered",
    "_course.Course.failed",
    "_attempts.Attempts.committed",
    "_attempts.Attempts.won",
    "_attempts.Attempts.superseded",
    "_course.Course.beside",
    "_settle.used_by",
    "_settle.used_of",
    "_desk.Desk.judge",
    "_desk.Desk.begin",
    "_invoke.late_of",
    "_relay.late_of",
    "_relay._Relay._event",
    "_relay._Relay._hold",
    "_race.Race._replace",
    "limits._bounds.Outputs.learn",
    "mirrors._mirroring.is_drawn",
    "mirrors._actor.usage_of",
    "mirrors._actor.estimated_cost",
]


class Bug(Exception):
    pass


def plant(monkeypatch: pytest.MonkeyPatch, place: str, at: int) -> list[str]:
    """The `at`-th call of `place` raises. Returns what was called."""
    target = f"spear.router.{place}"
    original = pydoc.locate(target)
    assert original is not None, target
    calls: list[str] = []

    def broken(*args: Any, **more: Any) -> Any:
        calls.append(place)
        if len(calls) == at:
            raise Bug(place)
        return original(*args, **more)

    monkeypatch.setattr(target, broken)
    return calls


@pytest.mark.parametrize("place", PLACES)
async def test_a_bug_anywhere_gives_all_back(
    fault_servers: Any, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    bad, well, late, mirror = servers = [fault_servers() for _ in range(4)]
    bad.script(times=None, status=500)
    well.script(times=None, delay=0.01)
    late.script(times=None, never=True)
    hedge = {"max_extra_load": 1.0, "delay": 0.0001, "max_attempts": 3}
    route = {"hedge": hedge, "mirror": {"to": mirror.name, "percent": 100}}
    met = 0
    async with nothing_left(), spear.open_runtime(limited(*servers, route=route), seed=5) as runtime:
        with trio.fail_after(20):
            for at in (1, 2, 3):
                for action in (ask, read):
                    with monkeypatch.context() as patch:
                        calls = plant(patch, place, at)
                        await action(runtime)
                        await settled(runtime, ledgers)
                    met += len(calls) >= at
            await settled(runtime, ledgers, *servers)
    assert met, "nobody called it"
