"""emb_*, img_*, asr_*, tts_*: the same five calls for each family; what differs stands in its `Family`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from spear.hostcall import _json
from spear.hostcall._errno import EACCES, EBADF, EINVAL, ENOMEM, ENOSYS, Refused
from spear.hostcall._family import Family, FamilyRequest
from spear.hostcall._family_send import FamilyResponse, send
from spear.hostcall._fds import Entry
from spear.hostcall._media_ref import admit_media_ref
from spear.hostcall._outbuf import put_out
from spear.ir import InlineMedia, StoredMedia, UrlMedia

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

SET_PARAM: Final = 1
GET_METRICS: Final = 2
GET_STATUS: Final = 3


def create(family: Family, guest: Guest) -> int:
    if family.name not in guest.operations.families:
        return ENOSYS
    if not guest.operations.allows(family.name):
        return EACCES
    # What is said takes much room: it does not compete with conversations.
    holdings = guest.audio_holdings if family.name == "asr" else guest.holdings
    return guest.fds.add(FamilyRequest(family, guest.limits, holdings))


def write(family: Family, guest: Guest, fd: int, ptr: int, length: int) -> int:
    guest.memory.check(ptr, length)
    if length > family.max_write(guest.limits):
        return EINVAL
    request = _request(family, guest, fd)
    if length == 0:
        return EINVAL
    request.check_room(length)  # before a copy is made of it
    request.write(guest.memory.read(ptr, length))
    return length


def recv(family: Family, guest: Guest, fd: int, out_ptr: int, out_len_ptr: int) -> int:
    return _response(family, guest, fd).receive(guest, out_ptr, out_len_ptr)


def control(family: Family, guest: Guest, fd: int, cmd: int, arg_ptr: int, arg_len_ptr: int) -> int:
    if cmd == SET_PARAM:
        return _set_param(family, guest, fd, arg_ptr, arg_len_ptr)
    entry = guest.fds.open(fd, Entry)
    if not isinstance(entry, FamilyRequest | FamilyResponse) or entry.family is not family:
        return EBADF
    if cmd == GET_METRICS:
        if isinstance(entry, FamilyRequest):
            return EBADF
        return put_out(guest.memory, _json.dump(entry.metrics()), arg_ptr, arg_len_ptr)
    if cmd == GET_STATUS:
        return put_out(guest.memory, _json.dump(entry.status()), arg_ptr, arg_len_ptr)
    return EINVAL


def _set_param(family: Family, guest: Guest, fd: int, arg_ptr: int, arg_len_ptr: int) -> int:
    length = guest.memory.read_i32(arg_len_ptr)
    if length > 0:
        guest.memory.check(arg_ptr, length)
    if length > guest.limits.param_bytes:
        return EINVAL
    request = _request(family, guest, fd)
    if length <= 0:
        return EINVAL
    text = guest.memory.read(arg_ptr, length)
    if _json.surely_over(text, guest.limits.session_json_values):
        return ENOMEM
    try:
        param = _json.parse(text)
    except _json.Malformed:
        return EINVAL
    key = param.get("key") if isinstance(param, dict) else None
    if not isinstance(key, str) or not key or "value" not in param:
        return EINVAL
    value = request.check_param(key, param["value"])
    if value is None:
        request.reset_param(key)
        return 0
    size, values = length, _json.count_values(param["value"], guest.limits.session_json_values)
    request.check_param_room(key, size, values)
    if isinstance(value, InlineMedia | StoredMedia | UrlMedia):
        value = admit_media_ref(guest, value)
    request.set_param(key, value, size, values)
    return 0


def _request(family: Family, guest: Guest, fd: int) -> FamilyRequest:
    request = guest.fds.open(fd, FamilyRequest)
    if request.family is not family:
        raise Refused(EBADF)
    return request


def _response(family: Family, guest: Guest, fd: int) -> FamilyResponse:
    response = guest.fds.open(fd, FamilyResponse)
    if response.family is not family:
        raise Refused(EBADF)
    return response


def close(family: Family, guest: Guest, fd: int) -> int:
    """The generic close: as everywhere, of any kind."""
    return guest.fds.close(fd)


async def send_request(family: Family, guest: Guest, fd: int, flags: int) -> int:
    return await send(guest, _request(family, guest, fd), flags)


CALLS: Final[tuple[tuple[str, str, Callable[..., Any]], ...]] = (
    ("create", "", create),
    ("ctl", "iiii", control),
    ("write", "iii", write),
    ("send", "ii", send_request),
    ("recv", "iii", recv),
    ("close", "i", close),
)
"""Name behind the family's, signature, function."""


def calls_of(family: Family) -> list[tuple[str, str, Callable[..., Any]]]:
    return [(f"{family.name}_{name}", params, partial(run, family)) for name, params, run in CALLS]
