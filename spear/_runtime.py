"""The face that callers see of a running tree of actors; `_open` makes it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import trio
from pydantic import JsonValue

from actors import (
    ActorCrashed,
    ActorStopped,
    Node,
    Ref,
    Spec,
    Supervisor,
    SupervisorClosed,
)

from ._capabilities import capabilities_of, usable_operations
from ._extras import need
from ._guest_chat import GuestChat
from ._guest_media import GuestMedia
from ._guest_operations import GuestOperations
from ._operations import (
    EmbedReply,
    ImageReply,
    Media,
    SpeakReply,
    TranscribeReply,
    embed_request,
    image_request,
    speak_request,
    transcribe_request,
    with_references,
)
from ._reload import Reloader, ReloadReport, Source
from ._shown import backends_shown
from ._tree import Executions, RunGuest
from .config import Config
from .config import TaskConfig as Task  # its public name
from .ir import (
    ChatResult,
    Completed,
    ErrorCode,
    ErrorEvent,
    GuestError,
    Meta,
    RequestEnvelope,
    ResponseEnvelope,
    SpearError,
    StreamEvent,
    ToolCall,
    make_error,
)
from .media import MediaStore
from .normalize import request_from_openai, with_requirements, with_stored_media
from .router import (
    Desk,
    Explanation,
    RouterMessage,
    failed_response,
)
from .router import invoke as ask_router
from .router import stream as stream_from_router
from .telemetry import Counters, RequestCounters

if TYPE_CHECKING:
    from .hostcall import ByteSink, Execution, LogSink, Offer, Termination

DRAIN_SECONDS: Final = 10.0
TASK_ID_CHARACTERS: Final = 128
_LISTS: Final = frozenset({list, tuple})
Observer = Callable[[RequestEnvelope, ResponseEnvelope], None]


@dataclass(frozen=True, slots=True)
class ChatReply:
    """The answer of `Runtime.chat`."""

    response: ResponseEnvelope

    @property
    def result(self) -> ChatResult:
        payload = self.response.result.payload
        assert isinstance(payload, ChatResult)
        return payload

    @property
    def text(self) -> str:
        """The text of the first choice; empty if it has none, as where the model calls tools."""
        return self.result.text

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        message = self.result.choices[0].message if self.result.choices else None
        return message.tool_calls if message is not None else ()


class Runtime:
    """A running tree of actors. Made by `open_runtime`; use it from any task of the same Trio run, many at a time."""

    def __init__(
        self, desk: Desk, supervisor: Supervisor, counters: Counters, observer: Observer | None, reloader: Reloader
    ) -> None:
        self.counters = counters
        """Requests, attempts, tokens and the turns of actors, counted; `.snapshot()`, or `.prometheus()` as text."""
        self._count = RequestCounters(counters)
        self._desk = desk
        self._supervisor = supervisor
        self._observer = observer
        self._spans = _spans(desk.generation.config)
        self._reloader = reloader
        self._media: MediaStore
        self._router: Ref[RouterMessage]
        self._executions: Executions | None = None
        self._opening = trio.Lock()

    @property
    def config(self) -> Config:
        """The configuration that holds now."""
        return self._desk.generation.config

    @property
    def media(self) -> MediaStore:
        """The objects behind `smsfile://` references: `save`, `load`, `write`, `read`, and for the host `grant` and
        `delete_task`."""
        return self._media

    async def reload(self, config: Config | Path | str | Mapping[str, Any] | None = None) -> ReloadReport:
        """Go on with another configuration: by default what this runtime was opened from, read again, keys included.

        All of it or nothing: what is wrong with it, or an instance that does not start, is in the report, and the
        runtime goes on as it was. Backends that are the same keep their connections and all that is known of them;
        those that changed or went finish what they have in hand. No request is refused or lost by it. A request under
        way keeps the attempt it is in, its deadline and its count of attempts; a further attempt is chosen by the new
        configuration.

        Waits for reloads before it, for the files, and for new instances to start (up to 30 s), not for those that
        leave. Cancelled, it has happened whole or not at all. Raises ValueError where there is nothing to read again.
        """
        return await self._reloader.reload(None if config is None else source_of(config))

    async def invoke(self, request: RequestEnvelope) -> ResponseEnvelope:
        """Ask once. Waits for the answer, at most as long as the request's `timeout_ms` or the host's default.

        Everything that goes wrong is an error in the envelope; `.unwrap()` raises it. A caller that is cancelled sees
        Trio's Cancelled at once; the backend's turn is cancelled with it and closes its connection.
        """
        request = with_requirements(_envelope(request))
        response = await ask_router(self._router, request)
        self._observe(request, response)
        return response

    @asynccontextmanager
    async def stream(self, request: RequestEnvelope) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        """Ask for a stream of events: `async with runtime.stream(request) as events: async for event in events: …`.

        Entering waits until a backend has begun to answer; a failure before that raises its `SpearError`. The events
        end with exactly one `completed` or `error`. Leaving the block early closes the backend's connection.
        """
        request = with_requirements(_envelope(request), stream=True)
        began = False
        try:
            async with (
                stream_from_router(self._router, request) as events,
                aclosing(self._watched(request, events)) as watched,
            ):
                began = True
                yield watched
        except SpearError as error:
            if not began:
                self._observe(request, failed_response(request, error.error))
            raise

    async def chat(
        self, model: str = "", *, messages: Sequence[Mapping[str, Any]], **parameters: JsonValue
    ) -> ChatReply:
        """Ask for one chat completion, in OpenAI's words: `messages`, and `tools`, `temperature`, `max_tokens`, ….

        A message's content may be a list of parts, OpenAI's, or `{"type": "image", "media": …}` and `{"type": "audio",
        "media": …}` with bytes, the path of a file, or a reference.

        An empty `model` leaves the choice to the host. Raises `CallerError` naming the field that is wrong, and the
        `SpearError` of an answer that is an error.
        """
        said: Any = messages
        parts = False
        if not isinstance(said, str):  # what else it may be that is wrong, the check below names
            said = [dict(message) if isinstance(message, Mapping) else message for message in said]
            for each in said:
                if type(each) is dict and type(each.get("content")) in _LISTS:
                    parts = True
        if parts:
            said = [await with_references(message, self.media) for message in said]
        body: JsonValue = {"model": model, "messages": said, **parameters}
        request = request_from_openai(body, meta=Meta(source="python"))
        if parts:
            inline_bytes = self.media.config.max_inline_bytes
            request = await with_stored_media(request, self.media, inline_bytes=inline_bytes)
        return ChatReply(await self._answered(request))

    async def embed(self, inputs: str | Sequence[str], model: str = "", **params: object) -> EmbedReply:
        """A vector for each text, in their order. `params`: `dimensions`, `encoding_format`; and, as for the other
        operations, `backend`, `timeout_ms`, `degradation` ("reject", "allow" or a list of steps); others go to the
        backend as they are. Waits and raises as `chat` does."""
        return EmbedReply(await self._answered(embed_request(inputs, model, params)))

    async def image(self, prompt: str, model: str = "", **params: object) -> ImageReply:
        """Draw. `params`: `n`, `size` ("512x512"), `quality`, `style`, `seed`; `image` and `mask`, each bytes, the path
        of a file or a reference, to change a picture. Waits and raises as `chat` does, and OSError for a file."""
        response = await self._answered(await image_request(prompt, model, params, self.media))
        return ImageReply(response, self.media)

    async def transcribe(self, audio: Media, model: str = "", **params: object) -> TranscribeReply:
        """The text of a recording: bytes, the path of a file, or a reference. `params`: `language`, `prompt`,
        `timestamps` ("segment", "word"), `diarization`, `temperature`, `translate=True` (to English). Waits and raises
        as `chat` does, and OSError for a file."""
        return TranscribeReply(await self._answered(await transcribe_request(audio, model, params, self.media)))

    async def speak(self, text: str, model: str = "", **params: object) -> SpeakReply:
        """Say `text`. `params`: `voice`, `format` ("wav", "mp3", …), `speed` (0.25 to 4), `ssml`. Waits and raises as
        `chat` does."""
        return SpeakReply(await self._answered(speak_request(text, model, params)), self.media)

    async def _answered(self, request: RequestEnvelope) -> ResponseEnvelope:
        response = await self.invoke(request)
        response.unwrap()
        return response

    async def run_guest(
        self,
        guest: Path | str | bytes,
        *,
        entry: str = "",
        timeout_s: float | Literal["configured"] | None = "configured",
        task: Task | str | None = None,
        on_log: LogSink | None = None,
        on_stdout: ByteSink | None = None,
        on_stderr: ByteSink | None = None,
        handle: Termination | None = None,
    ) -> Execution:
        """Run a WebAssembly module (a path, or its bytes) and wait for its end.

        What the guest does wrong is in the result (`status`, `error_message`). Raises `GuestError` if it cannot be
        loaded or started, OSError if the file cannot be read, `RoutingError` (overloaded) beyond the configured number
        of guests. Cancelling unwinds the guest. The callbacks get log records and output as they come and must not
        block; what they raise ends the guest and is raised here. A guest has no arguments, environment or stdin.

        Args:
            entry: the exported function to call; "" = `_start`, else `main`.
            timeout_s: wall-clock seconds above 0; None = no limit, by default the configuration's `guests.timeout_s`.
            task: whose rights it has, by itself or by its id; by default those of the `[[spear.tasks]]` entry named
                like the file's stem, if there is one, else all.
            handle: a `spear.hostcall.Termination`, to end this run from elsewhere.
        """
        limit_s = self.config.guests.timeout_s if timeout_s == "configured" else timeout_s
        if limit_s is not None and not limit_s > 0:
            raise ValueError(f"timeout_s is {limit_s}; expected seconds above 0, or None for no limit")
        source = guest if isinstance(guest, bytes) else Path(guest)
        with _said_where_closed():
            executions = await self._open_executions()
            module = await executions.engine.load(source)
        task = self._task(source, task)
        execution_id = f"exec-{secrets.token_hex(8)}"

        async def work() -> Execution:
            from .hostcall import GuestTask

            return await executions.engine.run(
                module,
                task=GuestTask(task.id, task.config),
                chat=GuestChat(self.invoke, self.stream, task, execution_id),
                offer=partial(self._offer, task),
                operations=self._operations(task, execution_id),
                entry=entry,
                timeout_s=limit_s,
                on_log=on_log,
                on_stdout=on_stdout,
                on_stderr=on_stderr,
                handle=handle,
                execution_id=execution_id,
                mcp=self._reloader.mcp.port,
            )

        with _said_where_closed(), executions.place():
            ref = await executions.guests.start(executions.spec(module.name, execution_id))
            try:
                return await ref.ask(RunGuest(work))
            except ActorCrashed as crash:  # a callback of the caller's raised: that is the caller's
                raise crash.__cause__ or crash from None
            finally:
                with trio.CancelScope(shield=True):  # bounded by the actor's grace: the guest unwinds at once
                    await executions.guests.stop(ref)

    def snapshot(self) -> Node:
        """The live actor tree, as of now; never waits."""
        return self._supervisor.snapshot()

    def explain(self, request: RequestEnvelope) -> Explanation:
        """How `request` would be routed now, and why. Sends nothing, changes nothing, never waits."""
        return self._desk.explain(with_requirements(_envelope(request)))

    def decisions(self) -> list[dict[str, Any]]:
        """The latest recorded decisions, at most 1000, the oldest first, as they stand in the file: records of kind
        "decision", and before the first of each generation one of kind "generation". Never waits."""
        return self._desk.decisions.records()

    def mirrors(self) -> list[dict[str, Any]]:
        """The latest records of mirrored requests, the oldest first, as `spear mirror report` reads them; at most
        `mirrors.keep`. Never waits."""
        mirroring = self._desk.mirroring
        return [] if mirroring is None else [each.model_dump(exclude_none=True) for each in mirroring.records]

    def mcp_servers(self) -> list[dict[str, Any]]:
        """The configured MCP servers, each with its state and the tools that it listed last. No commands, addresses or
        keys. Never waits, starts nothing."""
        return self._reloader.mcp.rows()

    async def mcp_tools(self, server: str) -> list[dict[str, Any]]:
        """What this MCP server offers now, as far as its `allowed_tools` permit it: name, description and schema of
        each tool. Starts the server where it is not running, and waits for it, at most its `tool_timeout_ms` (12 s).
        Raises `CallerError` for a server that is not configured, `BackendError` for one that fails."""
        return await self._reloader.mcp.tools(server)

    async def call_mcp_tool(
        self, server: str, tool: str, arguments: Mapping[str, JsonValue] | None = None
    ) -> dict[str, Any]:
        """Call a tool of an MCP server; gives its result as the protocol has it: `content`, `isError`, …. Waits at
        most the server's `tool_timeout_ms` (8 s). Cancelled, the server is told so. Raises as `mcp_tools` does, and
        where `allowed_tools` do not permit the tool."""
        return await self._reloader.mcp.call(server, tool, arguments)

    def backends(self) -> list[dict[str, Any]]:
        """Every configured instance with its state: "running", or why it is not usable. No addresses; of keys their
        names and what is known of them."""
        return backends_shown(self._desk.generation)

    def usage(self) -> dict[str, Any]:
        """What is left of rates and budgets, as of now; never waits, changes nothing.

        `backends`: for each backend that is limited, what is left by limit, those of its keys with the key's name.
        `budgets`: for each, its limits and what is left; where each task or run has its own, that of the ten who have
        least left."""
        return self._desk.usage()

    def capabilities(self) -> dict[str, Any]:
        """What can be asked for: operations, and the features and models of each, over all usable backends."""
        return capabilities_of(self._desk.generation.instances)

    def _operations(self, task: Task, execution_id: str) -> GuestOperations:
        return GuestOperations(
            self.invoke,
            self.stream,
            task,
            families=self.config.guests.families,
            media=GuestMedia(self.media, task.id),
            execution_id=execution_id,
        )

    def _offer(self, task: Task) -> Offer:
        from .hostcall import Offer

        guests, media = self.config.guests, self.config.media
        ops = usable_operations(guests.families, task.allow_operations)
        found = capabilities_of(self._desk.generation.instances, ops=ops, backends=task.allow_backends)
        limits = {"max_media_bytes": media.max_object_bytes, "max_media_task_bytes": media.max_task_bytes}
        return Offer(**found, limits=limits)

    def _task(self, source: Path | bytes, task: Task | str | None) -> Task:
        if isinstance(task, str):
            task = Task(id=task)
        if task is None:
            task = Task(id=(source.stem if isinstance(source, Path) else "guest")[:TASK_ID_CHARACTERS])
        configured = self._desk.generation.tasks.get(task.id)
        return configured if configured is not None and task == Task(id=task.id) else task

    async def _open_executions(self) -> Executions:
        async with self._opening:
            if self._executions is None:
                limits = self.config.guests
                executions = Executions(limits, DRAIN_SECONDS, self.media.config.max_inline_bytes)
                await self._supervisor.start(Spec(name="executions", factory=lambda: executions, grace=30.0))
                self._executions = executions
                self._reloader.guests = limits
        return self._executions

    def _observe(self, request: RequestEnvelope, response: ResponseEnvelope) -> None:
        self._count(request, response)
        if self._spans is not None:
            self._spans(request, response)
        if self._observer is not None:
            self._observer(request, response)

    async def _watched(
        self, request: RequestEnvelope, events: AsyncIterator[StreamEvent]
    ) -> AsyncGenerator[StreamEvent, None]:
        async for event in events:
            if isinstance(event, Completed):
                self._observe(request, event.response)
            elif isinstance(event, ErrorEvent):
                self._observe(request, failed_response(request, event.error))
            yield event


def source_of(config: Config | Path | str | Mapping[str, Any]) -> Source:
    """What to read again: a path that still means the same file where the program goes to another folder."""
    return Path(config).absolute() if isinstance(config, str | Path) else config


def _spans(config: Config) -> Observer | None:
    if not config.tracing:
        return None
    observer: Observer = need("spear.telemetry._spans", "otel").RequestSpans()
    return observer


def _envelope(request: object) -> RequestEnvelope:
    if not isinstance(request, RequestEnvelope):
        kind = type(request).__name__
        raise TypeError(f"a RequestEnvelope is needed, not {kind}; spear.ir.validate_request makes one of JSON values")
    return request


@contextmanager
def _said_where_closed() -> Iterator[None]:
    """A guest that cannot go on because its runtime has ended: one error, whichever part was met first."""
    from .hostcall import EngineClosed

    try:
        yield
    except (ActorStopped, SupervisorClosed, EngineClosed):
        message = "the runtime was closed before the guest had ended"
        raise GuestError(make_error(ErrorCode.CANCELLED, message)) from None
