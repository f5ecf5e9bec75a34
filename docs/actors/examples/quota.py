"""An actor, a question with a deadline, a rejection, and a crash that the supervisor repairs.

Prints:
    800 left
    rejected: 5000 are more than 800
    too slow, and the turn was cancelled
    crashed: division by zero
    1049 left after the restart
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import trio

from actors import Actor, ActorCrashed, Context, Request, Spec, open_supervisor


@dataclass(frozen=True, slots=True)
class Reserve(Request[int]):  # answered with an int
    tokens: int
    takes: float = 0.0


@dataclass(frozen=True, slots=True)
class Refill:  # only told, never answered
    tokens: int


class Refused(Exception):
    pass


class Quota(Actor[Reserve | Refill]):
    rejects = (Refused,)

    def __init__(self, limit: int) -> None:
        self.left = limit

    async def handle(self, msg: Reserve | Refill, ctx: Context[Reserve | Refill]) -> object:
        match msg:
            case Reserve(tokens, takes):
                if tokens > self.left:
                    raise Refused(f"{tokens} are more than {self.left}")
                await trio.sleep(takes)
                self.left -= tokens
                self.share = self.left / tokens  # a bug: nobody thought of 0
                return self.left
            case Refill(tokens):
                self.left += tokens
                return None
            case _:
                assert_never(msg)


async def main() -> None:
    async with open_supervisor() as sup:
        quota = await sup.start(Spec(name="quota", factory=lambda: Quota(1000)))
        print(await quota.ask(Reserve(200)), "left")

        try:
            await quota.ask(Reserve(5000))
        except Refused as exc:
            print("rejected:", exc)

        with trio.move_on_after(0.05) as scope:
            await quota.ask(Reserve(1, takes=60))
        if scope.cancelled_caught:
            print("too slow, and the turn was cancelled")

        try:
            await quota.ask(Reserve(0))
        except ActorCrashed as exc:
            print("crashed:", exc.__cause__)

        # asked while the actor restarts: queued, and answered by its next incarnation
        await quota.tell(Refill(50))
        print(await quota.ask(Reserve(1)), "left after the restart")


if __name__ == "__main__":
    trio.run(main)
