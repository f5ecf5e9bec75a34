"""spear demo: what Spear does, shown in half a minute on parts that are real but for the models."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import trio

import spear
import spear.guests
from actors import Node
from spear import Runtime
from spear.backends import find_kind
from spear.ir import (
    ContentDelta,
)
from spear.normalize import request_from_openai
from spear.router import COLUMNS

from ._demo_media import media
from ._demo_server import DemoServer, open_server
from ._demo_stage import Stage
from ._output import table
from ._signals import run_command

if TYPE_CHECKING:
    from spear.hostcall import Execution

CROWD: Final = 200
STUB: Final = {"spear": {"backends": [{"name": "stub", "kind": "stub", "hosting": "local"}]}}


def fallback_config(alpha: DemoServer, beta: DemoServer) -> dict[str, Any]:
    """Two OpenAI-compatible servers that offer the same class of model; alpha is preferred."""

    def server(at: DemoServer, priority: int) -> dict[str, Any]:
        return {
            "name": at.name,
            "kind": "openai_chat",
            "hosting": "local",
            "base_url": at.base_url,
            "model": f"{at.name}-small",
            "model_class": "small-chat",
            "priority": priority,
            "limits": {"max_inflight": CROWD, "max_queue": CROWD},
        }

    return {
        "spear": {
            "backends": [server(alpha, 0), server(beta, 1)],
            "routes": [{"match": {"model_class": "small-chat"}, "policy": "priority"}],
            "default_policy": "priority",
        }
    }


@click.command()
@click.option("--quick", is_flag=True, help="Leave out the pauses between words.")
@click.option(
    "--keep", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False), help="Leave sound and picture there."
)
def demo(quick: bool, keep: Path | None) -> None:
    """Watch guests, routing, a fallback and a tool call at work, and speech and a picture being made.

    Starts two small OpenAI-compatible servers of its own on 127.0.0.1 and stops them again; nothing else is contacted.
    """

    async def main() -> int:
        for kind in ("stub", "openai_chat"):  # a wheel may have been built without them: said before anything is shown
            find_kind(kind)
        began = time.perf_counter()
        stage = Stage()
        click.echo(click.style("Spear: guests, routing and backends as supervised actors", bold=True))
        click.echo(
            "Everything here is real, WebAssembly, actors, processes and sockets on 127.0.0.1, but for the models."
        )
        await embedded(stage)
        async with servers() as (alpha, beta):
            await beta.does(tokens_per_second=1000 if quick else 25)
            async with spear.open_runtime(fallback_config(alpha, beta), observer=stage.observe) as runtime:
                await failing_backend(stage, runtime, alpha, beta)
                await tool_call(stage, runtime)
                await streaming(stage, runtime)
                await leaving(stage, runtime, beta)
                await crowd(stage, runtime, beta)
                decision(stage, runtime)
        await media(stage, keep)
        seconds = time.perf_counter() - began
        click.echo(f"\nThat took {seconds:.1f} s; both servers are gone again. Next:")
        for command, what in (
            ('spear chat "hello"', "ask something yourself"),
            ("spear config init", "write a spear.toml for your own backends"),
            ("spear guest build agent.c && spear run agent.wasm", "your own guest; start from spear/guests/chat.c"),
        ):
            click.echo(f"    {command:52} {click.style(what, dim=True)}")
        return 0

    run_command(main)


@asynccontextmanager
async def servers() -> AsyncIterator[Sequence[DemoServer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_server(name)) for name in ("alpha", "beta")]


async def embedded(stage: Stage) -> None:
    async with spear.open_runtime(STUB, observer=stage.observe) as runtime:
        stage.scene("A guest", "hello.c, compiled to 4 KB of WebAssembly; it runs as a task on this very thread")
        await stage.guest(runtime, "hello")
        again = await runtime.run_guest(spear.guests.path("hello"))
        stage.say("once more", f"{again.duration_ms:.2f} ms, from the cache of compiled modules")
        stage.scene(
            "The guest asks a model",
            "chat.c, through hostcall → normalize → router → backend, to the stub in this process",
        )
        await stage.guest(runtime, "chat")
        stage.attempts()


async def failing_backend(stage: Stage, runtime: Runtime, alpha: DemoServer, beta: DemoServer) -> None:
    stage.scene(
        "The same guest, two servers, one of them broken",
        "alpha is preferred and answers every request with 503; the guest knows neither name, key nor address",
    )
    await alpha.does(status=503, error_message="down for maintenance")
    await stage.guest(runtime, "chat")
    stage.attempts()
    for server in (alpha, beta):
        counts = await server.counts()
        stage.say(server.name, f"saw {counts['total']} request, {counts['open']} still open")


async def tool_call(stage: Stage, runtime: Runtime) -> None:
    stage.scene(
        "A tool call",
        "the model asks for add(20, 22); the host calls that function inside the guest, which waits in its own send",
    )
    await stage.guest(runtime, "chat_tool")
    stage.attempts()


async def streaming(stage: Stage, runtime: Runtime) -> None:
    stage.scene(
        "A stream, from Python", "until the first word a failing backend can still be replaced; after it, never"
    )
    request = request_from_openai(
        {
            "model": "small-chat",
            "messages": [{"role": "user", "content": "words, one by one, as they come"}],
            "stream": True,
        }
    )
    began = trio.current_time()
    first = 0.0
    click.echo(f"    {click.style('answer'.ljust(12), dim=True)}", nl=False)
    async with runtime.stream(request) as events:
        async for event in events:
            if isinstance(event, ContentDelta):
                first = first or trio.current_time() - began
                click.echo(click.style(event.delta, fg="green"), nl=False)
    click.echo()
    stage.say(
        "times",
        f"first word after {first * 1000:.0f} ms, the whole after {(trio.current_time() - began) * 1000:.0f} ms",
    )
    stage.attempts()


async def leaving(stage: Stage, runtime: Runtime, beta: DemoServer) -> None:
    stage.scene("A caller that leaves", "beta never answers now; the caller gives up after 0.2 s")
    await beta.does(never=True)
    before = await beta.counts()
    with trio.move_on_after(0.2):
        await runtime.chat("small-chat", messages=[{"role": "user", "content": "anybody there?"}])
    after = await beta.counts()
    with trio.move_on_after(1.0):  # the socket is closed; the server, another process, has yet to notice
        while after["open"]:
            await trio.sleep(0.01)
            after = await beta.counts()
    stage.say("beta", f"saw it leave: {after['aborted'] - before['aborted']} aborted, {after['open']} still open")


async def crowd(stage: Stage, runtime: Runtime, beta: DemoServer) -> None:
    stage.scene(f"{CROWD} guests at once", "one thread; beta takes a second for each answer")
    await beta.does(delay=1.0)
    done: list[Execution] = []
    began = trio.current_time()

    async def one() -> None:
        done.append(await runtime.run_guest(spear.guests.path("chat")))

    async with trio.open_nursery() as nursery:
        for _ in range(CROWD):
            nursery.start_soon(one)
        await trio.sleep(0.95)
        tree = runtime.snapshot()
    seconds = trio.current_time() - began
    fine = sum(execution.status == "completed" for execution in done)
    stage.say("guests", f"{fine} of {CROWD} completed in {seconds:.2f} s; one after another it would be {CROWD:.0f} s")
    stage.say("the tree", "in the middle of it:")
    for line in tree_lines(tree):
        click.echo(f"      {line}")


def decision(stage: Stage, runtime: Runtime) -> None:
    stage.scene("Why this backend?", "spear explain REQUEST.json says so without sending anything")
    request = request_from_openai({"model": "small-chat", "messages": [{"role": "user", "content": "hi"}]})
    explanation = runtime.explain(request)
    for line in table(COLUMNS, list(explanation.rows())).splitlines():
        click.echo(f"    {line}")


def tree_lines(node: Node, depth: int = 0) -> list[str]:
    """The actor tree, indented; many children of one kind are summed up."""
    name = node.path.rpartition("/")[2]
    facts: list[str] = [node.status]
    if node.running:
        facts.append(f"{node.running} running")
    if node.mailbox_used:
        facts.append(f"{node.mailbox_used} queued")
    if node.handled:
        facts.append(f"{node.handled} done")
    lines = [f"{'   ' * depth}{click.style(name, bold=not depth)}  {click.style(', '.join(facts), dim=True)}"]
    shown = node.children if len(node.children) <= 4 else node.children[:2]
    for child in shown:
        lines += tree_lines(child, depth + 1)
    if len(shown) < len(node.children):
        lines.append(f"{'   ' * (depth + 1)}… and {len(node.children) - len(shown)} more")
    return lines
