"""Read by the type checker, not run: what a user of spear and spear.blocking gets, exactly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, assert_type

import spear
import spear.blocking
from actors import Node
from spear import ChatReply, Config, ReloadReport, RequestEnvelope, ResponseEnvelope, Runtime, Task
from spear.hostcall import Execution
from spear.ir import ChatResult, Problem, StreamEvent, ToolCall


async def on_trio(request: RequestEnvelope) -> None:
    async with spear.open_runtime("spear.toml") as runtime:
        assert_type(runtime, Runtime)
        assert_type(runtime.config, Config)
        assert_type(await runtime.invoke(request), ResponseEnvelope)
        reply = await runtime.chat("small", messages=[{"role": "user", "content": "hi"}], temperature=0.5)
        assert_type(reply, ChatReply)
        assert_type(reply.text, str)
        assert_type(reply.result, ChatResult)
        assert_type(reply.response, ResponseEnvelope)
        assert_type(reply.tool_calls, tuple[ToolCall, ...])
        async with runtime.stream(request) as events:
            assert_type(events, AsyncIterator[StreamEvent])
        execution = await runtime.run_guest(Path("a.wasm"), entry="main", timeout_s=None, task=Task(id="t"))
        assert_type(execution, Execution)
        assert_type(execution.exit_code, int | None)
        assert_type(execution.stdout, str)
        assert_type(runtime.snapshot(), Node)
        assert_type(runtime.backends(), list[dict[str, Any]])
        assert_type(runtime.capabilities(), dict[str, Any])
        assert_type(runtime.explain(request).chosen, str | None)
        report = await runtime.reload()
        assert_type(report, ReloadReport)
        assert_type(report.ok, bool)
        assert_type(report.added, tuple[str, ...])
        assert_type(report.problems, tuple[Problem, ...])
        assert_type(await runtime.reload({"spear": {}}), ReloadReport)
    async with spear.open_runtime("spear.toml", watch=True):
        pass
    async with spear.open_runtime({"spear": {}}, seed=1, observer=lambda asked, answered: None):
        pass


def off_trio(request: RequestEnvelope) -> None:
    with spear.blocking.open_runtime(Path("spear.toml")) as runtime:
        assert_type(runtime, spear.blocking.BlockingRuntime)
        assert_type(runtime.invoke(request), ResponseEnvelope)
        assert_type(runtime.chat(messages=[]), ChatReply)
        assert_type(runtime.run_guest(b"\0asm"), Execution)
        assert_type(runtime.snapshot(), Node)
        assert_type(runtime.reload("other.toml"), ReloadReport)
        with runtime.stream(request) as events:
            assert_type(events, Iterator[StreamEvent])
