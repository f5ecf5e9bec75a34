"""A scripted operation port, a media port in memory, and the short forms in which tests make the calls of families."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import trio

from spear.hostcall import FamilyEvent, FamilyName, FamilyReply, FamilySnapshot
from spear.ir import CallerError, ErrorCode, StoredMedia, make_error
from tests.spear.hostcall.probe import Probe

STREAM, ASYNC, METRICS = 4, 8, 1
ALL = frozenset({"emb", "img", "asr", "tts", "media"})


def refusal(code: ErrorCode, message: str = "no") -> CallerError:
    return CallerError(make_error(code, message))


class MemoryWriter:
    def __init__(self, media: MemoryMedia, mime: str, number: int) -> None:
        self._media = media
        self._mime = mime
        self._id = f"object-{number}"
        self.data = bytearray()
        self.ref: StoredMedia | None = None
        self.discarded = False

    def append(self, data: bytes) -> None:
        if len(self.data) + len(data) > self._media.max_bytes:
            raise refusal(ErrorCode.MEDIA_TOO_LARGE)
        self.data += data

    def commit(self) -> StoredMedia:
        if self.ref is None:
            self.ref = self._media.put(self._id, bytes(self.data), self._mime)
        return self.ref

    def discard(self) -> None:
        self.discarded = self.ref is None


class MemoryReader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._peeked = b""
        self.closed = False

    def peek(self, max_bytes: int) -> bytes:
        self._peeked = self._data[self._at : self._at + max_bytes]
        return self._peeked

    def advance(self) -> None:
        self._at += len(self._peeked)

    def close(self) -> None:
        self.closed = True


class MemoryMedia:
    """A media port that keeps everything in memory, for one task."""

    def __init__(self, *, max_bytes: int = 1 << 20, max_objects: int = 10) -> None:
        self.max_bytes = max_bytes
        self.max_objects = max_objects
        self.objects: dict[str, tuple[StoredMedia, bytes]] = {}
        self.writers: list[MemoryWriter] = []
        self.readers: list[MemoryReader] = []

    def put(self, name: str, data: bytes, mime: str) -> StoredMedia:
        digest = hashlib.sha256(data).hexdigest()
        ref = StoredMedia(uri=f"smsfile://{name}", mime=mime, size=len(data), sha256=digest)
        self.objects[ref.uri] = ref, data
        return ref

    def create(self, mime: str) -> MemoryWriter:
        if sum(not writer.discarded for writer in self.writers) >= self.max_objects:
            raise refusal(ErrorCode.MEDIA_TOO_LARGE)
        self.writers.append(MemoryWriter(self, mime, len(self.writers)))
        return self.writers[-1]

    def open(self, uri: str) -> MemoryReader:
        if uri not in self.objects:
            raise refusal(ErrorCode.MEDIA_NOT_FOUND)
        self.readers.append(MemoryReader(self.objects[uri][1]))
        return self.readers[-1]

    def find(self, uri: str) -> StoredMedia | None:
        found = self.objects.get(uri)
        return None if found is None else found[0]

    def may_fetch(self, url: str) -> bool:
        return url.startswith("https://allowed.example/")


BODY = {"_spear": {"backend": "b", "degraded": [], "model": "m"}, "text": "hä"}
OK = FamilyReply(BODY, backend="b", metrics={"input_tokens": 3}, tokens=(3, 2), cost=0.5)
FAILED = FamilyReply(error=make_error(ErrorCode.BACKEND_ERROR, "down"), backend="b")


class Operations:
    """Answers with prepared replies in order, the last one again and again; each waits for `gate` where there is one.
    Streams tell `deltas` first. It is no backend."""

    def __init__(
        self, *replies: FamilyReply, deltas: int = 2, families: frozenset[str] = ALL, media: MemoryMedia | None = None
    ) -> None:
        self.replies = list(replies) or [OK]
        self.deltas = deltas
        self.families = families
        self.media = media or MemoryMedia()
        self.allowed: Callable[[FamilyName], bool] = lambda family: True
        self.asked: list[FamilySnapshot] = []
        self.gate: trio.Event | None = None
        self.running = 0
        self.told = 0

    def allows(self, family: FamilyName) -> bool:
        return self.allowed(family)

    def _next(self) -> FamilyReply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    async def invoke(self, request: FamilySnapshot) -> FamilyReply:
        self.asked.append(request)
        self.running += 1
        try:
            await trio.lowlevel.checkpoint()
            if self.gate is not None:
                await self.gate.wait()
            return self._next()
        finally:
            self.running -= 1

    @asynccontextmanager
    async def stream(self, request: FamilySnapshot) -> AsyncIterator[AsyncIterator[FamilyEvent]]:
        self.asked.append(request)
        self.running += 1
        try:
            async with aclosing(self._events()) as events:
                yield events
        finally:
            self.running -= 1

    async def _events(self) -> AsyncGenerator[FamilyEvent, None]:
        if self.gate is not None:
            await self.gate.wait()
        yield FamilyEvent({"type": "started", "backend": "b", "model": "m"})
        for number in range(self.deltas):
            yield FamilyEvent({"type": "content_delta", "delta": f"w{number} "})
            self.told += 1
        yield FamilyEvent(reply=self._next())


async def set_param(probe: Probe, family: str, fd: int, key: str, value: Any) -> int:
    return await raw_param(probe, family, fd, json.dumps({"key": key, "value": value}))


async def raw_param(probe: Probe, family: str, fd: int, text: str | bytes) -> int:
    pointer, length = probe.put(20_000, text)
    probe.put_u32(8, length)
    return await probe.call(f"{family}_ctl", fd, 1, pointer, 8)


async def ask_json(probe: Probe, call: str, *arguments: int) -> Any:
    """An output call: its JSON, or its negative result."""
    raw = await probe.out(call, *arguments)
    return raw if isinstance(raw, int) else json.loads(raw)


async def new_request(probe: Probe, family: str, text: str = "say it") -> int:
    fd = await probe.call(f"{family}_create")
    assert fd >= 1000, fd
    assert await probe.call(f"{family}_write", fd, *probe.put(1024, text)) == len(text)
    return fd


async def settle(probe: Probe) -> None:
    """Let what goes on in the background get as far as it can."""
    for _ in range(20):
        await trio.lowlevel.checkpoint()
