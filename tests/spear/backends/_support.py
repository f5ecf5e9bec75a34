"""What the tests of backends share."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from spear.backends import Adapter, Call, Host, Key, StreamItem, find_kind
from spear.config import InstanceConfig
from spear.ir import ChatMessage, ChatRequest, Hosting, Operation, RequestEnvelope
from spear.secrets import Secret

CANARY = "canary-Zq7-do-not-show"


def call(**fields: Any) -> Call:
    """Clocks long enough for a busy machine, unless a test says otherwise."""
    return Call(
        **{
            "deadline": math.inf,
            "connect": 5.0,
            "first_event": 5.0,
            "idle": 5.0,
            "key": Key("the-key", Secret(CANARY)),
            **fields,
        }
    )


def instance(**fields: Any) -> InstanceConfig:
    given = {"name": "one", "kind": "openai_chat", "hosting": Hosting.LOCAL, "model": "test-model", **fields}
    if isinstance(given.get("base_url"), str):
        given["base_url"] = Secret(given["base_url"])
    return InstanceConfig(**given)


def ask(text: str = "hello big world", **fields: Any) -> RequestEnvelope:
    chat = {"messages": (ChatMessage(role="user", content=text),), **fields}
    return RequestEnvelope(operation=Operation.CHAT_COMPLETIONS, payload=ChatRequest(**chat))


@asynccontextmanager
async def adapter_to(base_url: str, **fields: Any) -> AsyncIterator[Adapter]:
    kind = find_kind("openai_chat")
    async with kind.open(instance(base_url=base_url, **fields), Host(redact=(Secret(CANARY),))) as adapter:
        yield adapter


async def use(adapter: Adapter, how: str, request: RequestEnvelope, conditions: Call) -> list[StreamItem]:
    """One attempt, plain or as a stream; of a plain one the items are none."""
    if how == "plain":
        await adapter.invoke(request, conditions)
        return []
    async with adapter.stream(request, conditions) as stream:
        return [item async for item in stream]
