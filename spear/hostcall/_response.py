"""What all response descriptors have in common: a body, or a queue of events, and the request behind it.

A response is pending until its body is complete, or streams events up to exactly one terminal one. Closing it cancels
the request behind it. Subclasses are the kinds; they say how an error looks to their guest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import trio

from spear.hostcall import _json
from spear.hostcall._errno import EAGAIN, ENOMEM, Refused
from spear.hostcall._event_queue import EventQueue
from spear.hostcall._fds import HUP, IN, Entry
from spear.hostcall._guest_error import guest_error
from spear.hostcall._outbuf import put_out
from spear.ir import CanonicalError, ErrorCode, make_error

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest
    from spear.hostcall._requests import Requests

State = Literal["Pending", "Streaming", "Done", "Failed"]


class Response(Entry):
    """`call` is the import that made it. With `stream` it has events, else one body, readable again and again."""

    __slots__ = (
        "_began",
        "_elapsed_ms",
        "_metrics",
        "_requests",
        "_scope",
        "backend",
        "body",
        "call",
        "events",
        "failed",
        "on_settled",
    )

    def __init__(self, requests: Requests, call: str, *, stream: bool = False) -> None:
        super().__init__()
        self._requests = requests
        self.call = call
        self.body: bytes | None = None
        self.events = EventQueue(requests.holdings, requests.touch) if stream else None
        self.failed = False
        self.backend: str | None = None
        self.on_settled: Callable[[], None] | None = None
        self._metrics: dict[str, Any] = {}
        self._scope: trio.CancelScope | None = None
        self._began = trio.current_time()
        self._elapsed_ms: int | None = None

    # What a request tells it.

    @property
    def settled(self) -> bool:
        """The body is complete, the terminal event is queued, or the guest has closed it."""
        return self.closed or self.body is not None or (self.events is not None and self.events.ended)

    def fill(self, body: bytes, metrics: dict[str, Any], error: CanonicalError | None = None) -> None:
        """The body; with `error` it says that one. Raises `Refused` (-12) if it is too much with all else that the
        guest has the host hold. No effect on what is settled."""
        if not self.settled:
            self._requests.holdings.take(len(body))
            self.body = body
            self._settle(metrics, error)
            self._requests.touch()

    async def finish(self, event: dict[str, Any], metrics: dict[str, Any]) -> None:
        """Queue the terminal event of a success; waits for room. Raises `Refused` as `EventQueue.put` does."""
        assert self.events is not None
        await self.events.put(event, last=True)
        if self.events.ended:
            self._settle(metrics, None)

    def fail(self, error: CanonicalError) -> None:
        """End at once with an error, whatever room there is. No effect on what is settled."""
        if self.settled:
            return
        if self.events is not None:
            self.events.end(self.error_event(error))
        else:
            self.body = _json.dump(self.error_body(error))
            self._requests.holdings.force(len(self.body))
            self._requests.touch()
        self._settle({}, error)

    def expire(self) -> None:
        """Its `timeout_ms` is over."""
        message = "the request took longer than its timeout_ms"
        self.fail(make_error(ErrorCode.TIMEOUT, message, clock="total"))

    def give_up(self, refused: Refused) -> None:
        """What was to be queued does not fit into what the guest may have the host hold: end, and leave the request.
        Raises `refused` if it is another one."""
        if refused.errno != ENOMEM:
            raise refused
        self.fail(make_error(ErrorCode.OVERLOADED, "the guest has the host hold too much"))
        if self._scope is not None:
            self._scope.cancel()

    def error_body(self, error: CanonicalError) -> dict[str, Any]:
        return {"error": guest_error(error)}

    def error_event(self, error: CanonicalError) -> dict[str, Any]:
        return {"type": "error", "error": guest_error(error)}

    def _settle(self, metrics: dict[str, Any], error: CanonicalError | None) -> None:
        self._metrics = metrics
        self._elapsed_ms = self._elapsed()
        if error is not None:
            self.failed = True
            self._requests.last_error.ended(self.call, self.fd, error)
        self._leave()

    def _leave(self) -> None:
        leave, self.on_settled = self.on_settled, None
        if leave is not None:
            leave()

    def _elapsed(self) -> int:
        return int((trio.current_time() - self._began) * 1000)

    # What the guest sees.

    def ready(self) -> int:
        if self.events is None:
            return IN if self.body is not None else 0
        if self.events.drained:
            return IN | HUP
        return IN if len(self.events) else 0

    def receive(self, guest: Guest, out_ptr: int, out_len_ptr: int) -> int:
        """The body, or the next event, by OUTBUF: -11 where there is none, 0 bytes behind the terminal one."""
        if self.events is None:
            if self.body is None:
                raise Refused(EAGAIN)
            return put_out(guest.memory, self.body, out_ptr, out_len_ptr)
        event = self.events.peek()
        if event is None:
            if not self.events.ended:
                raise Refused(EAGAIN)
            return put_out(guest.memory, b"", out_ptr, out_len_ptr)
        count = put_out(guest.memory, event, out_ptr, out_len_ptr)
        if count >= 0:
            self.events.pop()
            if self.events.drained:
                self._requests.touch()  # HUP from now on
        return count

    def metrics(self) -> dict[str, Any]:
        return dict(self._metrics)

    @property
    def state(self) -> State:
        if self.settled:
            return "Failed" if self.failed else "Done"
        return "Pending" if self.events is None or self.events.seq == 0 else "Streaming"

    def status(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "elapsed_ms": self._elapsed() if self._elapsed_ms is None else self._elapsed_ms,
            "queued_events": len(self.events) if self.events is not None else 0,
            "state": self.state,
        }

    # Its request, where that runs in the background.

    def attach(self, scope: trio.CancelScope) -> None:
        """The scope of the request: closing cancels it."""
        self._scope = scope

    def release(self) -> None:
        self._requests.holdings.take(-len(self.body or b""))
        self.body, self._metrics = None, {}
        if self.events is not None:
            self.events.close()
        if self._scope is not None:
            self._scope.cancel()
        self._leave()
