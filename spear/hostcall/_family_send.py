"""X_send: a request of a family on its way, and the response descriptor in which it ends."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from spear.hostcall._errno import EINVAL, ENOMEM, Refused
from spear.hostcall._family import Family, FamilyRequest
from spear.hostcall._large_body import BodyTooLarge, encode_body
from spear.hostcall._operation_port import FamilyReply, FamilySnapshot
from spear.hostcall._response import Response
from spear.hostcall._usage import Usage
from spear.ir import CanonicalError, ErrorCode, make_error

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

METRICS: Final = 1
STREAM: Final = 4
ASYNC: Final = 8


class FamilyResponse(Response):
    __slots__ = ("family", "kind", "metered")

    def __init__(self, guest: Guest, family: Family, flags: int) -> None:
        super().__init__(guest.requests, f"{family.name}_send", stream=bool(flags & STREAM))
        self.family = family
        self.kind = family.response_kind
        self.metered = bool(flags & METRICS)


async def send(guest: Guest, request: FamilyRequest, flags: int) -> int:
    """Waits for the answer unless one of the flags says otherwise; whatever goes wrong is then in the response."""
    family = request.family
    if flags & STREAM and not family.streams:
        return EINVAL
    request.check_ready()
    in_background = flags & (STREAM | ASYNC)
    if in_background:
        guest.requests.check_room()
    response = FamilyResponse(guest, family, flags)
    response_fd = guest.fds.add(response)  # reserved before anything is contacted
    admitted = 0
    if in_background and family.name != "asr":  # whose sound goes over the disk
        admitted = guest.requests.admit(response, request.input_bytes)
        if admitted < 0:
            return response_fd
    snapshot = request.snapshot()
    if in_background:
        run = _stream if flags & STREAM else _ask
        timeout_ms = snapshot.params.get("timeout_ms")
        timeout_s = None if timeout_ms is None else timeout_ms / 1000
        guest.requests.start(response, partial(run, guest, response, snapshot), timeout_s, admitted=admitted)
        return response_fd
    try:
        await _ask(guest, response, snapshot)
    except Refused as refused:
        if refused.errno != ENOMEM:
            raise
        response.fail(make_error(ErrorCode.OVERLOADED, "the guest has the host hold too much"))
    return response_fd


async def _ask(guest: Guest, response: FamilyResponse, snapshot: FamilySnapshot) -> None:
    reply = await guest.operations.invoke(snapshot)
    body = await _settled(guest, response, reply)
    if body is not None:
        response.fill(body, dict(reply.metrics) if response.metered else {})


async def _stream(guest: Guest, response: FamilyResponse, snapshot: FamilySnapshot) -> None:
    assert response.events is not None
    async with guest.operations.stream(snapshot) as events:
        async for event in events:
            if event.reply is None:
                if event.body["type"] == "started":
                    response.backend = event.body["backend"]
                await response.events.put(event.body)
            elif await _settled(guest, response, event.reply) is not None:
                last = {"type": "completed", "response": event.reply.body}
                await response.finish(last, dict(event.reply.metrics) if response.metered else {})


async def _settled(guest: Guest, response: FamilyResponse, reply: FamilyReply) -> bytes | None:
    """Count what was used; the body of a success. An error, also of a body that cannot be given out, ends the
    response."""
    tokens_in, tokens_out = reply.tokens
    guest.usage += Usage(1, tokens_in, tokens_out, reply.cost, reply.estimated)
    if reply.backend is not None:
        response.backend = reply.backend
    error: CanonicalError | None = reply.error
    body = b""
    if error is None:
        try:
            body = await encode_body(reply.body, guest.limits.body_bytes)
        except BodyTooLarge:
            error = make_error(ErrorCode.BACKEND_ERROR, "response too large")
        except ValueError:
            error = make_error(ErrorCode.BACKEND_ERROR, "the response is not representable as JSON")
    if error is not None:
        response.fail(error)
        return None
    return body
