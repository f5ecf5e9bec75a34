"""An adapter whose stream tells its one answer whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from spear.backends._protocol import Answer, Call, StreamItem
from spear.backends._whole import told_whole
from spear.ir import RequestEnvelope


class Whole(ABC):
    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer: ...

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope, call: Call) -> AsyncGenerator[AsyncIterator[StreamItem], None]:
        answer = await self.invoke(request, call)
        yield told_whole(self.name, answer)
