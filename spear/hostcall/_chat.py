"""cchat_*: the session calls a guest builds a conversation with. What a send does in between is in `_tool_loop`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spear.hostcall import _json
from spear.hostcall._chat_port import ChatReply
from spear.hostcall._chat_response import ChatResponse
from spear.hostcall._errno import EBADF, EINVAL, EIO, ENOMEM, Refused
from spear.hostcall._mcp import check_param, offer_tools
from spear.hostcall._outbuf import put_out
from spear.hostcall._session import ChatSession
from spear.hostcall._tool_loop import run_loop
from spear.hostcall._usage import measure
from spear.ir import ErrorCode, make_error

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

SET_PARAM: Final = 1
GET_METRICS: Final = 2
ENABLE_METRICS: Final = 1
AUTO_TOOL_CALL: Final = 2
_UNUSABLE: Final = make_error(ErrorCode.BACKEND_ERROR, "the answer is too large or not representable as JSON")


def create(guest: Guest) -> int:
    return guest.fds.add(ChatSession(guest.limits, guest.holdings, guest.mcp.policy))


def write_msg(guest: Guest, fd: int, role_ptr: int, role_len: int, content_ptr: int, content_len: int) -> int:
    memory = guest.memory
    memory.check(role_ptr, role_len)
    if role_len > guest.limits.role_bytes:
        return EINVAL
    memory.check(content_ptr, content_len)
    if content_len > guest.limits.message_bytes:
        return EINVAL
    session = guest.fds.open(fd, ChatSession)
    role = memory.read(role_ptr, role_len).decode("utf-8", "replace")
    content = memory.read(content_ptr, content_len).decode("utf-8", "replace")
    session.add_text(role, content, content_len)
    return 0


def write_fn(guest: Guest, fd: int, fn_offset: int, fn_ptr: int, fn_len: int) -> int:
    guest.memory.check(fn_ptr, fn_len)
    if fn_len > guest.limits.tool_bytes:
        return EINVAL
    session = guest.fds.open(fd, ChatSession)
    text = guest.memory.read(fn_ptr, fn_len).decode("utf-8", "replace")
    session.add_tool(fn_offset, text, fn_len)
    return 0


def control(guest: Guest, fd: int, cmd: int, arg_ptr: int, arg_len_ptr: int) -> int:
    if cmd == SET_PARAM:
        return _set_param(guest, fd, arg_ptr, arg_len_ptr)
    if cmd == GET_METRICS:
        response = guest.fds.open(fd, ChatResponse)
        return put_out(guest.memory, _json.dump(response.metrics()), arg_ptr, arg_len_ptr)
    return EINVAL


def _set_param(guest: Guest, fd: int, arg_ptr: int, arg_len_ptr: int) -> int:
    length = guest.memory.read_i32(arg_len_ptr)
    guest.memory.check(arg_ptr, length)
    if length > guest.limits.param_bytes:
        return EINVAL
    text = guest.memory.read(arg_ptr, length)
    if _json.surely_over(text, guest.limits.session_json_values):
        return ENOMEM
    try:
        param = _json.parse(text)
    except _json.Malformed:
        return EIO
    key = param.get("key") if isinstance(param, dict) else None
    if not isinstance(key, str) or not key:
        return EIO
    value = param.get("value")
    entry = guest.fds.get(fd)
    check_param(guest.mcp.policy, key, value)
    if entry.closed:
        return EBADF
    if isinstance(entry, ChatSession):
        entry.set_param(key, value, length)
        return 0
    return 0 if isinstance(entry, ChatResponse) else EBADF


async def send(guest: Guest, fd: int, flags: int) -> int:
    session = guest.fds.open(fd, ChatSession)
    response = ChatResponse(guest.requests)
    response_fd = guest.fds.add(response)  # reserved before anything is contacted
    if flags & AUTO_TOOL_CALL:
        reply, tokens = await run_loop(guest, session)
    else:
        snapshot = session.snapshot()
        snapshot = (await offer_tools(guest, session.mcp)).into(snapshot)
        reply = await guest.chat(snapshot)
        tokens, used = measure(snapshot, reply)
        guest.usage += used
    metrics = tokens.metrics() if flags & ENABLE_METRICS and not reply.failed else {}
    body, fits = _encode(reply, guest.limits.body_bytes)
    try:
        response.fill(body, metrics if fits else {}, reply.failure if fits else _UNUSABLE)
    except Refused:
        guest.fds.close(response_fd)  # the number is never seen by the guest
        raise
    return response_fd


def _encode(reply: ChatReply, max_bytes: int) -> tuple[bytes, bool]:
    try:
        body = _json.dump(reply.body)
    except ValueError:
        return _json.dump({"error": {"message": "Runtime error: response is not representable as JSON"}}), False
    if len(body) > max_bytes:
        return _json.dump({"error": {"message": "Runtime error: response too large"}}), False
    return body, True


def recv(guest: Guest, fd: int, out_ptr: int, out_len_ptr: int) -> int:
    return guest.fds.open(fd, ChatResponse).receive(guest, out_ptr, out_len_ptr)


def close(guest: Guest, fd: int) -> int:
    """The generic close behind every *_close."""
    return guest.fds.close(fd)
