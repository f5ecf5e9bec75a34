"""Sends a scenario's traffic to a runtime and counts what comes of it: the same for modelled and for real backends."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import trio

from spear._runtime import Runtime
from spear.ir import (
    BackendInfo,
    ChatMessage,
    ChatRequest,
    Completed,
    ErrorEvent,
    Meta,
    Operation,
    RequestEnvelope,
    ResponseEnvelope,
    SpearError,
    bears_content,
)

from ._model import Size
from ._scenario import Traffic
from ._tally import Tally
from ._traffic import Arrival

_CHARS_PER_TOKEN: Final = 4
_MOST_PAYLOADS: Final = 512
_LONGEST_TEXT: Final = 1_000_000
_TOLD_EVERY: Final = 500
Told = Callable[[int], None]
SleepUntil = Callable[[float], Awaitable[None]]


class Drive:
    """`sizes` holds what each request under way asks for, so that a modelled backend can look it up, and the last
    `keep` that have ended: a mirror asks later. `tell` is told now and then how many have arrived."""

    def __init__(
        self,
        runtime: Runtime,
        traffic: Traffic,
        tally: Tally,
        sizes: dict[str, Size],
        tell: Told | None = None,
        *,
        keep: int = 0,
        sleep_until: SleepUntil = trio.sleep_until,
    ) -> None:
        self._runtime = runtime
        self._traffic = traffic
        self._tally = tally
        self._sizes = sizes
        self._tell = tell
        self._keep = keep
        self._sleep_until = sleep_until
        self._meta = Meta(source="simulation")
        self._ended_ids: deque[str] = deque()
        self._payloads: dict[int, ChatRequest] = {}
        self._timeout_ms = None if traffic.timeout is None else max(1, round(traffic.timeout * 1000))

    async def run(self, arrivals: Iterator[Arrival], start: float) -> None:
        """Until the last request has ended. As many tasks as requests are under way, which the router bounds: beyond
        its limits it refuses at once."""
        async with trio.open_nursery() as nursery:
            for number, arrival in enumerate(arrivals):
                if (at := start + arrival.at) > trio.current_time():
                    await self._sleep_until(at)
                self._tally.arrived(arrival.at)
                nursery.start_soon(self._one, number, arrival)
                if self._tell is not None and number % _TOLD_EVERY == 0:
                    self._tell(number)

    async def _one(self, number: int, arrival: Arrival) -> None:
        request_id = f"sim-{number}"
        size = self._sizes[request_id] = Size(arrival.input_tokens, arrival.output_tokens)
        request = self._request(request_id, arrival)
        patience = self._traffic.patience
        scope: AbstractContextManager[trio.CancelScope | None] = (
            nullcontext() if patience is None else trio.move_on_after(patience)
        )
        try:
            with scope as left:
                await (self._stream(request, arrival) if arrival.stream else self._invoke(request, arrival))
            if left is not None and left.cancelled_caught:
                self._tally.gone(arrival.at)
        finally:
            self._tally.reached += size.calls > 0
            self._ended_ids.append(request_id)
            if len(self._ended_ids) > self._keep:
                del self._sizes[self._ended_ids.popleft()]

    async def _invoke(self, request: RequestEnvelope, arrival: Arrival) -> None:
        began = trio.current_time()
        self._ended(await self._runtime.invoke(request), arrival, began)

    async def _stream(self, request: RequestEnvelope, arrival: Arrival) -> None:
        began, first = trio.current_time(), False
        try:  # noqa: PLW0717 -- a stream is one block
            async with self._runtime.stream(request) as events:
                async for event in events:
                    if not first and bears_content(event):
                        first = True
                        self._tally.first.add(trio.current_time() - began)
                    if isinstance(event, Completed):
                        self._ended(event.response, arrival, began)
                    elif isinstance(event, ErrorEvent):
                        self._tally.failed(arrival.at, event.error.code.value)
        except SpearError as error:
            self._tally.failed(arrival.at, error.error.code.value)

    def _ended(self, response: ResponseEnvelope, arrival: Arrival, began: float) -> None:
        if response.result.error is not None:
            self._tally.failed(arrival.at, response.result.error.code.value)
            return
        backend: BackendInfo | None = response.backend
        assert backend is not None
        self._tally.answered(arrival.at, trio.current_time() - began, backend.name, response.usage.cost)

    def _request(self, request_id: str, arrival: Arrival) -> RequestEnvelope:
        tokens = arrival.input_tokens
        payload = self._payloads.get(tokens)
        if payload is None:
            if len(self._payloads) >= _MOST_PAYLOADS:
                self._payloads.clear()
            text = "word" * min(tokens, _LONGEST_TEXT // _CHARS_PER_TOKEN)
            payload = self._payloads[tokens] = ChatRequest(
                model=self._traffic.model, messages=(ChatMessage(role="user", content=text),)
            )
        meta = self._meta
        if arrival.session is not None:
            meta = Meta(source="simulation", session_id=f"session-{arrival.session}")
        return RequestEnvelope(
            request_id=request_id,
            operation=Operation.CHAT_COMPLETIONS,
            meta=meta,
            timeout_ms=self._timeout_ms,
            payload=payload,
        )
