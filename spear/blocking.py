"""The same runtime for programs that are not on Trio: plain threads, asyncio, a notebook.

    with spear.blocking.open_runtime("spear.toml") as runtime:
        print(runtime.chat("small-chat", messages=[{"role": "user", "content": "Hello"}]).text)

One thread, owned by the block, runs Trio; the methods may be called from any other thread, many at a time. A
KeyboardInterrupt in a waiting call cancels what it waits for and is raised when that has ended. From asyncio, use
`asyncio.to_thread`.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio
from pydantic import JsonValue

from actors import Node

from . import _runtime
from .config import Config
from .ir import RequestEnvelope, ResponseEnvelope, StreamEvent

if TYPE_CHECKING:
    from .hostcall import Execution

T = TypeVar("T")


class _Job(Generic[T]):
    """One call from another thread: runs in a task of its own, under a scope that the caller can cancel."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self.work = work
        self.result: Future[T] = Future()
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        try:
            with self.scope:
                self.result.set_result(await self.work())
                return
        except Exception as error:  # noqa: BLE001 - it belongs to the waiting thread
            self.result.set_exception(error)
            return
        finally:
            if not self.result.done():  # cancelled: by the caller or by the end of the block
                self.result.cancel()


class BlockingRuntime:
    """A `Runtime` seen from other threads. Made by `open_runtime`; every method raises RuntimeError after its block."""

    def __init__(self, runtime: _runtime.Runtime, nursery: trio.Nursery, token: trio.lowlevel.TrioToken) -> None:
        self._runtime = runtime
        self._nursery = nursery
        self._token = token
        self._closed = False

    def invoke(self, request: RequestEnvelope) -> ResponseEnvelope:
        """As `Runtime.invoke`; waits for the answer."""
        return self._call(lambda: self._runtime.invoke(request))

    def chat(
        self, model: str = "", *, messages: Sequence[Mapping[str, JsonValue]], **parameters: JsonValue
    ) -> _runtime.ChatReply:
        """As `Runtime.chat`; waits for the answer."""
        return self._call(lambda: self._runtime.chat(model, messages=messages, **parameters))

    def run_guest(self, guest: Path | str | bytes, **options: Any) -> Execution:
        """As `Runtime.run_guest`, whose keyword arguments it takes; callbacks are called in the runtime's thread."""
        return self._call(lambda: self._runtime.run_guest(guest, **options))

    @contextmanager
    def stream(self, request: RequestEnvelope) -> Iterator[Iterator[StreamEvent]]:
        """As `Runtime.stream`: `with runtime.stream(request) as events: for event in events: …`.

        The backend is read only as fast as the loop asks. Leaving the block early closes the backend's connection
        first.
        """
        wanted, wants = trio.open_memory_channel[Future[StreamEvent | None]](1)
        opened: Future[None] = Future()

        async def serve() -> None:
            async with wants, self._runtime.stream(request) as events:
                opened.set_result(None)
                async for future in wants:
                    try:
                        future.set_result(await anext(events, None))
                    except Exception as error:  # noqa: BLE001 - it belongs to the waiting thread
                        future.set_exception(error)
                    finally:
                        if not future.done():
                            future.cancel()

        def following() -> Iterator[StreamEvent]:
            while True:
                future: Future[StreamEvent | None] = Future()
                self._soon(_send, wanted, future, job)
                event = self._wait(future, job)
                if event is None:
                    return
                yield event

        job = _Job(serve)
        job.result.add_done_callback(lambda ended: _settle(opened, ended))
        self._start(job)
        self._wait(opened, job)
        try:
            yield following()
        finally:
            self._soon(job.scope.cancel)
            _await_end(job)

    def snapshot(self) -> Node:
        """As `Runtime.snapshot`."""

        async def look() -> Node:
            await trio.lowlevel.checkpoint()
            return self._runtime.snapshot()

        return self._call(look)

    def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        job = _Job(work)
        self._start(job)
        return self._wait(job.result, job)

    def _start(self, job: _Job[Any]) -> None:
        self._soon(self._nursery.start_soon, job.run)

    def _wait(self, future: Future[T], job: _Job[Any]) -> T:
        try:
            return future.result()
        except KeyboardInterrupt:
            self._soon(job.scope.cancel)
            _await_end(job)
            raise

    def _soon(self, function: Callable[..., object], *arguments: object) -> None:
        if self._closed or threading.current_thread() is self._thread:
            why = "is closed" if self._closed else "would wait for itself: this is its own thread"
            raise RuntimeError(f"the runtime {why}")
        self._token.run_sync_soon(function, *arguments)

    _thread: threading.Thread


def _send(channel: trio.MemorySendChannel[Future[T]], future: Future[T], job: _Job[Any]) -> None:
    try:
        channel.send_nowait(future)
    except trio.BrokenResourceError:  # the stream's task has ended
        future.set_exception(job.result.exception() or RuntimeError("the stream has ended"))


def _settle(opened: Future[None], ended: Future[None]) -> None:
    """A stream that ended before it was open failed to open."""
    if opened.done():
        return
    error = None if ended.cancelled() else ended.exception()
    if error is not None:
        opened.set_exception(error)
    else:
        opened.cancel()


def _await_end(job: _Job[Any]) -> None:
    ended = threading.Event()
    job.result.add_done_callback(lambda _: ended.set())
    ended.wait()


@contextmanager
def open_runtime(config: Config | Path | str | Mapping[str, Any]) -> Iterator[BlockingRuntime]:
    """Open a runtime in a thread of its own; the arguments and errors are those of `spear.open_runtime`.

    Leaving the block cancels what other threads still wait for (they see CancelledError), closes everything and joins
    the thread.
    """
    ready: Future[BlockingRuntime] = Future()
    leave = trio.Event()

    async def main() -> None:
        async with _runtime.open_runtime(config) as runtime, trio.open_nursery() as nursery:
            face = BlockingRuntime(runtime, nursery, trio.lowlevel.current_trio_token())
            face._thread = threading.current_thread()
            ready.set_result(face)
            await leave.wait()
            nursery.cancel_scope.cancel()

    failure: list[BaseException] = []

    def body() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that opened the block
            if ready.done():
                failure.append(error)
            else:
                ready.set_exception(error)

    thread = threading.Thread(target=body, name="spear-runtime")
    thread.start()
    try:
        face = ready.result()
    except BaseException:
        thread.join()
        raise
    try:
        yield face
    finally:
        face._closed = True
        face._token.run_sync_soon(leave.set)
        thread.join()
    if failure:
        raise failure[0]
