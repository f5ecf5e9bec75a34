"""A lifespan that fails by itself: between the end of its last loop and its exit is a moment in which others ask."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from actors import Actor, ActorStopped, MailboxFull, Request, Spec, open_supervisor


@dataclass(frozen=True)
class Question(Request[int]):
    pass


class Fragile(Actor[Question]):
    fail: trio.Event

    @asynccontextmanager
    async def lifespan(self, ctx):
        Fragile.fail = trio.Event()

        async def background():
            await Fragile.fail.wait()
            raise ZeroDivisionError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(background)
            yield  # noqa: RUF075 - an error cancels it anyway
            nursery.cancel_scope.cancel()

    async def handle(self, msg, ctx):
        return 1


@pytest.mark.parametrize("mailbox", [0, 5])
async def test_whoever_asks_in_that_moment_gets_an_answer_of_the_library(mailbox, autojump_clock):
    seen = Counter()
    for pause in range(60):
        async with open_supervisor(name="s", intensity=50) as supervisor:
            ref = await supervisor.start(Spec(name="a", factory=Fragile, concurrency=3, mailbox=mailbox))

            async def ask(ref=ref):
                try:
                    with trio.fail_after(60):
                        seen[await ref.ask_nowait(Question())] += 1
                except (MailboxFull, ActorStopped) as error:
                    seen[type(error).__name__] += 1

            async with trio.open_nursery() as nursery:
                Fragile.fail.set()
                for _ in range(12):
                    nursery.start_soon(ask)
                    for _ in range(1 + pause % 3):
                        await trio.lowlevel.checkpoint()
    assert seen.total() == 60 * 12
    assert seen[1] > 0
