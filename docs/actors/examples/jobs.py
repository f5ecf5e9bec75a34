"""One temporary child per job, hundreds at once; a full mailbox that is an answer; a stop that drains.

Prints:
    500 jobs done, 0 children left
    accepted 3, full 2
    drained: ['a', 'b']
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from actors import Actor, Context, MailboxFull, Request, Spec, open_supervisor


@dataclass(frozen=True, slots=True)
class Run(Request[int]):
    number: int


class Job(Actor[Run]):
    async def handle(self, msg: Run, ctx: Context[Run]) -> object:
        ctx.finish()  # this actor ends after this turn
        await trio.sleep(0.01)
        return msg.number * 2


class Slow(Actor[Run]):
    async def handle(self, msg: Run, ctx: Context[Run]) -> object:
        await trio.sleep(0.05)
        return msg.number


@dataclass(frozen=True, slots=True)
class Write:
    text: str


class Writer(Actor[Write]):
    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    async def handle(self, msg: Write, ctx: Context[Write]) -> object:
        await trio.sleep(0.01)
        self.lines.append(msg.text)
        return None


async def many_jobs() -> None:
    results: list[int] = []

    async with open_supervisor(name="jobs", stop="together") as jobs:

        async def one(number: int) -> None:
            ref = await jobs.start(Spec(name=f"job-{number}", factory=Job, restart="temporary"))
            results.append(await ref.ask(Run(number)))
            await ref.wait_exit()

        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(one, number)
        print(len(results), "jobs done,", len(jobs.snapshot().children), "children left")


async def overload() -> None:
    outcomes: list[str] = []
    async with open_supervisor() as sup:
        # two turns in flight and one message queued; the next is refused at once
        slow = await sup.start(Spec(name="slow", factory=Slow, concurrency=2, mailbox=1))

        async def one(number: int) -> None:
            try:
                await slow.ask_nowait(Run(number))
                outcomes.append("accepted")
            except MailboxFull:
                outcomes.append("full")

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(one, number)
    print("accepted", outcomes.count("accepted"), end=", ")
    print("full", outcomes.count("full"))


async def drained() -> None:
    lines: list[str] = []
    async with open_supervisor() as sup:
        writer = await sup.start(Spec(name="writer", factory=lambda: Writer(lines), drain=5))
        writer.tell_nowait(Write("a"))
        writer.tell_nowait(Write("b"))
    print("drained:", lines)


async def main() -> None:
    await many_jobs()
    await overload()
    await drained()


if __name__ == "__main__":
    trio.run(main)
