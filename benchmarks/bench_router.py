"""What the router costs: one decision, and a whole call through all layers to the in-process stub. One core, CPU time.

python -m benchmarks.bench_router [--rounds 15] [--json]
"""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from time import process_time

import trio

import spear

sys.path.insert(0, str(Path(__file__).parent.parent))
from actors import Ref, open_supervisor
from benchmarks._measure import arguments, pin_to_one_core, ping_pong, report, rounds, row
from spear.config import Config, InstanceConfig, Price
from spear.ir import ChatMessage, ChatRequest, Hosting, Operation, RequestEnvelope
from spear.router import Desk, RouterMessage, build_generation, facts_of, invoke, router_spec, stream

PINGS = 4_000
CALLS = 2_000
WORDS = 200
POLICY = "weighted_round_robin"


def ask_for(text: str = "hello, how are you?") -> RequestEnvelope:
    message = ChatMessage(role="user", content=text)
    return RequestEnvelope(
        operation=Operation.CHAT_COMPLETIONS, payload=ChatRequest(model="small", messages=(message,))
    )


@asynccontextmanager
async def routed(count: int, policy: str = POLICY) -> AsyncIterator[tuple[Desk, Ref[RouterMessage]]]:
    """A router over `count` stubs, each with its actor."""
    backends = tuple(
        InstanceConfig(
            name=f"stub-{i}",
            kind="stub",
            hosting=Hosting.LOCAL,
            model_class="small",
            weight=1 + i % 7,
            price=Price(input=1 + i % 3, output=2),
        )
        for i in range(count)
    )
    desk = Desk(build_generation(Config(backends=backends, default_policy=policy)), rng=Random(1))
    async with open_supervisor() as supervisor:
        for each in desk.generation.instances:
            each.ref = await supervisor.start(desk.generation.spec(each))
            each.latency((Operation.CHAT_COMPLETIONS, False)).answered(0.2 + each.index / 1000, 0.0)
        yield desk, await supervisor.start(router_spec(desk))


async def decision(count: int, policy: str = POLICY) -> float:
    async with routed(count, policy) as (desk, _):
        facts = facts_of(ask_for())
        times = max(20, 20_000 // count)
        start = process_time()
        for _ in range(times):
            desk.decide(facts, 0.0)
        return (process_time() - start) / times
    raise AssertionError


async def facts() -> float:
    request = ask_for()
    await trio.lowlevel.checkpoint()
    start = process_time()
    for _ in range(CALLS):
        facts_of(request)
    return (process_time() - start) / CALLS


async def call() -> float:
    """All layers, as an embedding program meets them: the envelope is checked for what it requires, decided on by the
    router, answered by the stub, each an actor; requests, attempts, tokens and turns are counted."""
    backends = [{"name": f"b{number}", "kind": "stub", "hosting": "local"} for number in range(10)]
    request = ask_for()
    async with spear.open_runtime({"spear": {"backends": backends}}) as runtime:
        start = process_time()
        for _ in range(CALLS):
            (await runtime.invoke(request)).unwrap()
        return (process_time() - start) / CALLS
    raise AssertionError


async def call_router() -> float:
    async with routed(10) as (_, router):
        request = ask_for()
        start = process_time()
        for _ in range(CALLS):
            (await invoke(router, request)).unwrap()
        return (process_time() - start) / CALLS
    raise AssertionError


async def streamed_event() -> float:
    async with routed(10) as (_, router):
        request = ask_for("word " * WORDS)
        count = 0
        start = process_time()
        for _ in range(10):
            async with stream(router, request) as events:
                async for _ in events:
                    count += 1
        return (process_time() - start) / count
    raise AssertionError


CASES: dict[str, Callable[[], Awaitable[float]]] = {
    "raw trio ping-pong": partial(ping_pong, process_time, PINGS),
    "facts of a request": facts,
    "a decision, 10 candidates": partial(decision, 10),
    "a decision, 100 candidates": partial(decision, 100),
    "a decision, 1000 candidates": partial(decision, 1000),
    "a decision, 10 candidates, least_inflight": partial(decision, 10, "least_inflight"),
    "a decision, 10 candidates, weighted_random": partial(decision, 10, "weighted_random"),
    "a decision, 10 candidates, priority": partial(decision, 10, "priority"),
    "a decision, 10 candidates, peak_ewma": partial(decision, 10, "peak_ewma"),
    "a decision, 100 candidates, peak_ewma": partial(decision, 100, "peak_ewma"),
    "a decision, 1000 candidates, peak_ewma": partial(decision, 1000, "peak_ewma"),
    "a decision, 10 candidates, consistent_hash": partial(decision, 10, "consistent_hash"),
    "a decision, 100 candidates, consistent_hash": partial(decision, 100, "consistent_hash"),
    "a decision, 1000 candidates, consistent_hash": partial(decision, 1000, "consistent_hash"),
    "a decision, 10 candidates, cheapest": partial(decision, 10, "cheapest"),
    "a decision, 1000 candidates, cheapest": partial(decision, 1000, "cheapest"),
    "invoke to the stub, 10 backends": call,
    "of that, the router and the backend": call_router,
    "one streamed event, 10 backends": streamed_event,
}
REACH = {
    "a decision, 10 candidates": 1.2,
    "a decision, 100 candidates": 6.0,
    "a decision, 1000 candidates": 45.0,
    "a decision, 10 candidates, peak_ewma": 1.2,
    "a decision, 100 candidates, peak_ewma": 6.0,
    "a decision, 1000 candidates, peak_ewma": 45.0,
    "a decision, 10 candidates, consistent_hash": 1.2,
    "a decision, 100 candidates, consistent_hash": 6.0,
    "a decision, 1000 candidates, consistent_hash": 45.0,
    "invoke to the stub, 10 backends": 8.0,
}


def measure(case: Callable[[], Awaitable[float]]) -> float:
    gc.collect()  # what the case before left (a thousand actors) is not this one's to clean up
    return trio.run(case)


def main() -> None:
    args = arguments(__doc__, 15)
    pin_to_one_core()
    raw, *others = CASES
    figures = rounds({name: partial(measure, case) for name, case in CASES.items()}, args.rounds)
    rows = [row(figures, raw), *(row(figures, name, raw, REACH.get(name)) for name in others)]
    report("The router, one core, CPU time", rows, as_json=args.json)


if __name__ == "__main__":
    main()
