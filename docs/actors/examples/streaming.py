"""A stream with backpressure: the producer is never more than `buffer` items and one ahead.

Prints:
    got 0 1 2 3 4
    produced at most 8 items for 5 that were read
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from actors import Actor, Context, Sink, Spec, StreamRequest, open_supervisor


@dataclass(frozen=True, slots=True)
class Count(StreamRequest[int]):
    upto: int


class Counter(Actor[Count]):
    def __init__(self, produced: list[int]) -> None:
        self.produced = produced

    async def handle_stream(self, msg: Count, out: Sink[int], ctx: Context[Count]) -> None:
        for number in range(msg.upto):
            self.produced.append(number)
            await out.send(number)  # waits while 2 items are unread


async def main() -> None:
    produced: list[int] = []
    async with open_supervisor() as sup:
        counter = await sup.start(Spec(name="counter", factory=lambda: Counter(produced)))
        got = []
        async with counter.stream(Count(1_000_000), buffer=2) as numbers:
            async for number in numbers:
                got.append(str(number))
                if number == 4:
                    break  # leaving the block cancels the producer's turn
        print("got", *got)
    if len(produced) <= 8:
        print("produced at most 8 items for 5 that were read")


if __name__ == "__main__":
    trio.run(main)
