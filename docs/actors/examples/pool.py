"""Nested supervision and monitoring: an actor that owns workers, hears of their end and shows up in one tree.

Prints:
    ALPHA
    the pool heard: worker-1 crashed
    root
      pool: running, {'workers': 2}
        workers
          worker-0: running, {}
          worker-2: running, {}
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from actors import Actor, ActorCrashed, Context, Exit, Node, Ref, Request, Spec, open_supervisor


@dataclass(frozen=True, slots=True)
class Shout(Request[str]):
    text: str


class Worker(Actor[Shout]):
    async def handle(self, msg: Shout, ctx: Context[Shout]) -> object:
        if not msg.text:
            raise ValueError("nothing to shout")
        return msg.text.upper()


class Pool(Actor[Shout | Exit]):
    def __init__(self) -> None:
        self.workers: list[Ref[Shout]] = []

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Shout | Exit]) -> AsyncIterator[None]:
        async with open_supervisor(name="workers", stop="together") as sup:
            for number in range(3):
                ref = await sup.start(Spec(name=f"worker-{number}", factory=Worker, restart="temporary"))
                sup.watch(ref, to=ctx.ref, make=lambda ended: ended)
                self.workers.append(ref)
            yield

    async def handle(self, msg: Shout | Exit, ctx: Context[Shout | Exit]) -> object:
        if isinstance(msg, Exit):
            print("the pool heard:", msg.path.rpartition("/")[2], msg.reason)
            self.workers = [ref for ref in self.workers if ref.path != msg.path]
            return None
        worker = self.workers[1 if not msg.text else 0]
        try:
            return await worker.ask(msg)
        except ActorCrashed:
            return "?"

    def observe(self) -> Mapping[str, object]:
        return {"workers": len(self.workers)}


def show(node: Node, indent: str = "") -> None:
    name = node.path.rpartition("/")[2]
    print(indent + (name if node.kind == "supervisor" else f"{name}: {node.status}, {dict(node.state)}"))
    for child in node.children:
        show(child, indent + "  ")


async def main() -> None:
    async with open_supervisor() as sup:
        pool = await sup.start(Spec(name="pool", factory=Pool, concurrency=8))
        print(await pool.ask(Shout("alpha")))
        await pool.ask(Shout(""))
        await trio.sleep(0.05)
        show(sup.snapshot())


if __name__ == "__main__":
    trio.run(main)
