"""cchat_*: the calls with which a guest builds a conversation. Sending it and reading the answer: `_chat_send`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spear.hostcall import _json
from spear.hostcall._chat_response import ChatResponse
from spear.hostcall._errno import EAGAIN, EBADF, EINVAL, EIO, ENOMEM, Refused
from spear.hostcall._mcp import check_param
from spear.hostcall._outbuf import put_out
from spear.hostcall._session import ChatSession

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

SET_PARAM: Final = 1
GET_METRICS: Final = 2


def create(guest: Guest) -> int:
    return guest.fds.add(ChatSession(guest.limits, guest.holdings, guest.mcp.policy))


def writable(guest: Guest, fd: int) -> ChatSession:
    """The session, while no tool loop in the background writes to it. Raises `Refused`."""
    session = guest.fds.open(fd, ChatSession)
    if session.loop is not None:
        raise Refused(EAGAIN)
    return session


def write_msg(guest: Guest, fd: int, role_ptr: int, role_len: int, content_ptr: int, content_len: int) -> int:
    memory = guest.memory
    memory.check(role_ptr, role_len)
    if role_len > guest.limits.role_bytes:
        return EINVAL
    memory.check(content_ptr, content_len)
    if content_len > guest.limits.message_bytes:
        return EINVAL
    session = writable(guest, fd)
    role = memory.read(role_ptr, role_len).decode("utf-8", "replace")
    content = memory.read(content_ptr, content_len).decode("utf-8", "replace")
    session.add_text(role, content, content_len)
    return 0


def write_fn(guest: Guest, fd: int, fn_offset: int, fn_ptr: int, fn_len: int) -> int:
    guest.memory.check(fn_ptr, fn_len)
    if fn_len > guest.limits.tool_bytes:
        return EINVAL
    session = writable(guest, fd)
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


def close(guest: Guest, fd: int) -> int:
    """The generic close behind every *_close."""
    return guest.fds.close(fd)
