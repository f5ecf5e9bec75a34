"""How to test an actor, and code that holds a Ref: run this file with pytest (pytest-trio), or as a program.

Prints:
    2 tests passed
"""

from __future__ import annotations

from dataclasses import dataclass

import trio
import trio.testing

from actors import Actor, Backoff, Context, Ref, Request, Spec, open_supervisor
from actors.testing import RecordingInstrument, assert_quiet, deterministic, fake_ref


@dataclass(frozen=True, slots=True)
class Divide(Request[float]):
    by: float


class Divider(Actor[Divide]):
    async def handle(self, msg: Divide, ctx: Context[Divide]) -> object:
        return 100 / msg.by


async def report(divider: Ref[Divide]) -> str:
    return f"{await divider.ask(Divide(8)):.1f}"


async def test_code_that_holds_a_ref() -> None:
    assert await report(fake_ref(lambda msg: 100 / msg.by)) == "12.5"


async def test_a_crash_is_repaired() -> None:
    seen = RecordingInstrument()
    with deterministic(seed=1):
        async with open_supervisor(instruments=(seen,)) as sup:
            ref = await sup.start(Spec(name="divider", factory=Divider, backoff=Backoff(first=30)))
            ref.tell_nowait(Divide(0))
            assert await report(ref) == "12.5"  # half a minute later, on the mock clock
            assert_quiet(sup)
    assert [event.hook for event in seen.events if event.hook != "turn_started"] == [
        "started", "turn_finished", "restarting", "started", "turn_finished", "exited",
    ]  # fmt: skip


if __name__ == "__main__":
    for test in (test_code_that_holds_a_ref, test_a_crash_is_repaired):
        trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))
    print("2 tests passed")
