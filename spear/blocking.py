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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio
from pydantic import JsonValue

from actors import Instrument, Node

from . import _open, _runtime
from ._operations import EmbedReply, ImageReply, Media, SpeakReply, TranscribeReply, bytes_of
from ._reload import ReloadReport
from .backends import Kind
from .config import Config
from .filters import FilterFunction
from .ir import MediaRef, RequestEnvelope, ResponseEnvelope, StreamEvent
from .router import Explanation
from .telemetry import Counters

if TYPE_CHECKING:
    from .hostcall import Execution

__all__ = ["BlockingRuntime", "open_runtime"]

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
        self, model: str = "", *, messages: Sequence[Mapping[str, Any]], **parameters: JsonValue
    ) -> _runtime.ChatReply:
        """As `Runtime.chat`; waits for the answer."""
        return self._call(lambda: self._runtime.chat(model, messages=messages, **parameters))

    def embed(self, inputs: str | Sequence[str], model: str = "", **params: object) -> EmbedReply:
        """As `Runtime.embed`; waits for the answer."""
        return self._call(lambda: self._runtime.embed(inputs, model, **params))

    def image(self, prompt: str, model: str = "", **params: object) -> ImageReply:
        """As `Runtime.image`; waits for the answer. `load` below reads its images."""
        return self._call(lambda: self._runtime.image(prompt, model, **params))

    def transcribe(self, audio: Media, model: str = "", **params: object) -> TranscribeReply:
        """As `Runtime.transcribe`; waits for the answer."""
        return self._call(lambda: self._runtime.transcribe(audio, model, **params))

    def speak(self, text: str, model: str = "", **params: object) -> SpeakReply:
        """As `Runtime.speak`; waits for the answer. `load` below reads its audio."""
        return self._call(lambda: self._runtime.speak(text, model, **params))

    def load(self, media: MediaRef) -> bytes:
        """The bytes of a reference, from the media store. Raises `CallerError` where it is not there any more."""
        return self._call(lambda: bytes_of(media, self._runtime.media))

    def mcp_servers(self) -> list[dict[str, Any]]:
        """As `Runtime.mcp_servers`."""
        return self._look(self._runtime.mcp_servers)

    def mcp_tools(self, server: str) -> list[dict[str, Any]]:
        """As `Runtime.mcp_tools`; waits for the server."""
        return self._call(lambda: self._runtime.mcp_tools(server))

    def call_mcp_tool(self, server: str, tool: str, arguments: Mapping[str, JsonValue] | None = None) -> dict[str, Any]:
        """As `Runtime.call_mcp_tool`; waits for the answer."""
        return self._call(lambda: self._runtime.call_mcp_tool(server, tool, arguments))

    def reload(self, config: Config | Path | str | Mapping[str, Any] | None = None) -> ReloadReport:
        """As `Runtime.reload`; waits for its end."""
        return self._call(lambda: self._runtime.reload(config))

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
        opened: Future[StreamEvent | None] = Future()
        awaited = [opened]  # what the caller waits for now: the end of the job settles it at the latest

        async def serve() -> None:
            async with wants, self._runtime.stream(request) as events:
                opened.set_result(None)
                async for future in wants:
                    try:
                        future.set_result(await anext(events, None))
                    except Exception as error:  # noqa: BLE001 - it belongs to the waiting thread
                        future.set_exception(error)

        def following() -> Iterator[StreamEvent]:
            while True:
                awaited[0] = Future()
                self._soon(_send, wanted, awaited[0])
                event = self._wait(awaited[0], job)
                if event is None:
                    return
                yield event

        job = _Job(serve)
        job.result.add_done_callback(lambda ended: _settle(awaited[0], ended))
        self._start(job)
        self._wait(opened, job)
        try:
            yield following()
        finally:
            self._stop(job)

    def explain(self, request: RequestEnvelope) -> Explanation:
        """As `Runtime.explain`."""
        return self._look(lambda: self._runtime.explain(request))

    def decisions(self) -> list[dict[str, Any]]:
        """As `Runtime.decisions`."""
        return self._look(self._runtime.decisions)

    def backends(self) -> list[dict[str, Any]]:
        """As `Runtime.backends`."""
        return self._look(self._runtime.backends)

    def usage(self) -> dict[str, Any]:
        """As `Runtime.usage`."""
        return self._look(self._runtime.usage)

    def mirrors(self) -> list[dict[str, Any]]:
        """As `Runtime.mirrors`."""
        return self._look(self._runtime.mirrors)

    def capabilities(self) -> dict[str, Any]:
        """As `Runtime.capabilities`."""
        return self._look(self._runtime.capabilities)

    @property
    def counters(self) -> Counters:
        """As `Runtime.counters`; may be read from any thread."""
        return self._runtime.counters

    def snapshot(self) -> Node:
        """As `Runtime.snapshot`."""
        return self._look(self._runtime.snapshot)

    def _look(self, function: Callable[[], T]) -> T:
        async def look() -> T:
            await trio.lowlevel.checkpoint()
            return function()

        return self._call(look)

    def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        job = _Job(work)
        self._start(job)
        return self._wait(job.result, job)

    def _start(self, job: _Job[Any]) -> None:
        self._soon(self._launch, job)

    def _launch(self, job: _Job[Any]) -> None:
        try:
            self._nursery.start_soon(job.run)
        except RuntimeError:  # the block was left between the call and now
            job.result.cancel()

    def _wait(self, future: Future[T], job: _Job[Any]) -> T:
        try:
            return future.result()
        except KeyboardInterrupt:
            self._stop(job)
            raise

    def _stop(self, job: _Job[Any]) -> None:
        """Cancel the job and wait for its end. After the block it is cancelled already."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(job.scope.cancel)
        ended = threading.Event()
        job.result.add_done_callback(lambda _: ended.set())
        ended.wait()

    def _soon(self, function: Callable[..., object], *arguments: object) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("the runtime would wait for itself: this is its own thread")
        if self._closed:
            raise RuntimeError("the runtime is closed")
        try:
            self._token.run_sync_soon(function, *arguments)
        except trio.RunFinishedError:  # closed at this very moment
            raise RuntimeError("the runtime is closed") from None

    _thread: threading.Thread


def _send(channel: trio.MemorySendChannel[Future[T]], future: Future[T]) -> None:
    try:
        channel.send_nowait(future)
    except trio.BrokenResourceError:  # the stream's task has ended, with the runtime
        future.cancel()


def _settle(awaited: Future[Any], ended: Future[None]) -> None:
    """What a stream still owes when it ends: its error where it failed to open, else a cancellation."""
    if awaited.done():
        return
    error = None if ended.cancelled() else ended.exception()
    if error is not None:
        awaited.set_exception(error)
    else:
        awaited.cancel()


@contextmanager
def open_runtime(
    config: Config | Path | str | Mapping[str, Any] | None = None,
    *,
    instruments: Sequence[Instrument] = (),
    observer: _runtime.Observer | None = None,
    seed: int | None = None,
    kinds: Mapping[str, Kind] | None = None,
    filters: Mapping[str, FilterFunction] | None = None,
    watch: bool = False,
) -> Iterator[BlockingRuntime]:
    """Open a runtime in a thread of its own; the arguments and errors are those of `spear.open_runtime`.

    `instruments` and `observer` are called in that thread. Leaving the block cancels what other threads still wait for
    (they see CancelledError), closes everything and joins the thread.
    """
    begun: Future[trio.lowlevel.TrioToken] = Future()
    ready: Future[BlockingRuntime] = Future()
    scope = trio.CancelScope()
    leave = trio.Event()
    given_up = threading.Event()

    async def main() -> None:
        begun.set_result(trio.lowlevel.current_trio_token())
        if given_up.is_set():  # whoever set it looked whether we had begun: one of the two has seen the other
            scope.cancel()
        with scope:
            async with (
                _open.open_runtime(
                    config,
                    instruments=instruments,
                    observer=observer,
                    seed=seed,
                    kinds=kinds,
                    filters=filters,
                    watch=watch,
                ) as runtime,
                trio.open_nursery() as nursery,
            ):
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
    face: BlockingRuntime | None = None
    # All of it inside: a KeyboardInterrupt may come at any point, also in the start of the thread, and must not leave
    # behind one that nobody ends.
    try:
        thread.start()
        face = ready.result()
        yield face
    finally:
        given_up.set()
        if face is not None:
            face._closed = True
        if begun.done():
            with suppress(trio.RunFinishedError):  # it has ended: `ready` or `failure` has why
                begun.result().run_sync_soon(leave.set if face is not None else scope.cancel)
        if thread.is_alive():
            thread.join()
    if failure:
        raise failure[0]
