"""A bug of the router's own, anywhere in a request: the answer is an error, and what was reserved and held is given back."""

from __future__ import annotations

import pydoc
from typing import Any

import pytest
import trio

import spear
from spear.ir import ErrorCode, SpearError
from tests.system.kit import chat, nothing_left
from tests.system.test_settled_servers import Ledgers, ask, key, ledgers, limited, read, settled  # noqa: F401

PLACES = [
    "_desk.decide",
    "_desk.facts_of",
    "_course.send_model",
    "_course.Leg.limit",
    "_course.settle_leg",
    "_course.settle_usage",
    "_course._attempt",
    "_course.ok_response",
    "_course.backend_info",
    "_course.jitter_of",
    "_course.Course.answered",
    "_course.Course.failed",
    "_course.Course.committed",
    "_course.Course.won",
    "_course.Course.superseded",
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


@pytest.mark.parametrize("action", [ask, read])
@pytest.mark.parametrize("place", PLACES)
async def test_a_bug_anywhere(fault_servers: Any, ledgers: Ledgers, monkeypatch, place: str, action) -> None:
    bad, well, mirror = fault_servers(), fault_servers(), fault_servers()
    bad.script(times=None, status=500, delay=0.002)
    route = {"hedge": {"max_extra_load": 1.0, "delay": 0.0001}, "mirror": {"to": mirror.name, "percent": 100}}
    source = limited(bad, well, mirror, route=route)
    async with nothing_left(), spear.open_runtime(source, seed=5) as runtime:
        with trio.fail_after(20):
            for at in (1, 2, 3, 4):
                with monkeypatch.context() as patch:
                    calls = plant(patch, place, at)
                    await action(runtime)
                    await settled(runtime, ledgers, bad, well, mirror)
                    await action(runtime)
                    await settled(runtime, ledgers, bad, well, mirror)
                print(place, at, len(calls))
