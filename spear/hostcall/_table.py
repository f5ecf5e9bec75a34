"""Every import a guest can have: module, name, signature, and the function behind it.

Rule 1: the name and signature of a hostcall appear in this file and nowhere else.
Rule 2: a plain hostcall never waits. A suspending one is an `async def` and runs in the guest's own task.

Signatures: one letter per parameter and one or none for the result, `i` for i32 and `I` for i64.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from spear.hostcall import (
    _about,
    _basic,
    _chat,
    _chat_parts,
    _chat_send,
    _epoll,
    _media,
    _wasi_files,
    _wasi_poll,
    _wasi_process,
)
from spear.hostcall._family import FAMILIES
from spear.hostcall._family_calls import calls_of
from spear.hostcall._memory import BadRange
from spear.hostcall._unavailable import unavailable
from spear.hostcall._wasi_errno import FAULT

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

SPEAR: Final = "spear"
WASI: Final = "wasi_snapshot_preview1"


_NO_FD: Final = frozenset(
    {"log", "sleep_ms", "user_stream_open", "spear_capabilities", "spear_last_error", "media_create", "media_open"}
)


@dataclass(frozen=True, slots=True)
class Hostcall:
    module: str
    name: str
    params: str
    result: str
    run: Callable[..., Any]
    at_once: Callable[..., int | None] | None = None
    """Of a suspending hostcall: its result where it need not wait this time, else None. It does not wait itself."""
    remarked: bool = True
    """A negative result is kept for `spear_last_error`."""

    @property
    def has_fd(self) -> bool:
        """Its first argument is a descriptor."""
        return bool(self.params) and self.name not in _NO_FD

    @property
    def suspends(self) -> bool:
        return inspect.iscoroutinefunction(self.run)


def _spear(name: str, params: str, result: str, run: Callable[..., Any]) -> Hostcall:
    return Hostcall(SPEAR, name, params, result, run)


def _wasi(name: str, params: str, run: Callable[..., Any]) -> Hostcall:
    return Hostcall(WASI, name, params, "i", _with_wasi_errno(run))


def _with_wasi_errno(run: Callable[..., Any]) -> Callable[..., Any]:
    """The same memory checks speak another language there: a bad range is WASI's FAULT."""
    if inspect.iscoroutinefunction(run):

        async def suspending(guest: Guest, *arguments: int) -> int:
            try:
                result: int = await run(guest, *arguments)
            except BadRange:
                return FAULT
            return result

        return suspending

    def plain(guest: Guest, *arguments: int) -> int:
        try:
            result: int = run(guest, *arguments)
        except BadRange:
            return FAULT
        return result

    return plain


_BASIC: Final = (
    _spear("time_now_ms", "", "I", _basic.time_now_ms),
    _spear("wall_time_s", "", "I", _basic.wall_time_s),
    _spear("random_i64", "", "I", _basic.random_i64),
    _spear("sleep_ms", "i", "", _basic.sleep_ms),
    _spear("log", "iii", "i", _basic.log),
)

_CHAT: Final = (
    _spear("cchat_create", "", "i", _chat.create),
    _spear("cchat_write_msg", "iiiii", "i", _chat.write_msg),
    _spear("cchat_write_parts", "iiiii", "i", _chat_parts.write_parts),
    _spear("cchat_write_fn", "iiii", "i", _chat.write_fn),
    _spear("cchat_ctl", "iiii", "i", _chat.control),
    _spear("cchat_send", "ii", "i", _chat_send.send),
    Hostcall(SPEAR, "cchat_recv", "iii", "i", _chat_send.recv, at_once=_chat_send.recv_at_once),
    _spear("cchat_close", "i", "i", _chat.close),
)

_ABOUT: Final = (
    _spear("spear_abi_version", "", "i", _about.abi_version),
    _spear("spear_capabilities", "ii", "i", _about.capabilities),
    Hostcall(SPEAR, "spear_last_error", "ii", "i", _about.last_error, remarked=False),
)

_FAMILIES: Final = tuple(
    _spear(name, params, "i", run) for family in FAMILIES for name, params, run in calls_of(family)
)

_MEDIA: Final = (
    _spear("media_create", "ii", "i", _media.create),
    _spear("media_write", "iii", "i", _media.write),
    _spear("media_commit", "iii", "i", _media.commit),
    _spear("media_open", "ii", "i", _media.open_object),
    _spear("media_read", "iii", "i", _media.read),
    _spear("media_close", "i", "i", _chat.close),
)

_EPOLL: Final = (
    _spear("spear_epoll_create", "", "i", _epoll.create),
    _spear("spear_epoll_ctl", "iiii", "i", _epoll.control),
    _spear("spear_epoll_wait", "iiii", "i", _epoll.wait),
    _spear("spear_epoll_close", "i", "i", _chat.close),
    _spear("spear_fd_ctl", "iiii", "i", _epoll.fd_control),
)

_SWITCHED_OFF: Final = (
    _spear("rtasr_create", "", "i", unavailable),
    _spear("rtasr_ctl", "iiii", "i", unavailable),
    _spear("rtasr_write", "iii", "i", unavailable),
    _spear("rtasr_read", "iii", "i", unavailable),
    _spear("rtasr_close", "i", "i", _chat.close),
    _spear("mic_create", "", "i", unavailable),
    _spear("mic_ctl", "iiii", "i", unavailable),
    _spear("mic_read", "iii", "i", unavailable),
    _spear("mic_close", "i", "i", _chat.close),
    _spear("user_stream_open", "ii", "i", unavailable),
    _spear("user_stream_read", "iii", "i", unavailable),
    _spear("user_stream_write", "iii", "i", unavailable),
    _spear("user_stream_close", "i", "i", _chat.close),
    _spear("user_stream_ctl_open", "", "i", unavailable),
    _spear("user_stream_ctl_read", "iii", "i", unavailable),
)

_WASI_FILES: Final = (
    _wasi("fd_advise", "iIIi", _wasi_files.fd_advise),
    _wasi("fd_allocate", "iII", _wasi_files.not_a_file),
    _wasi("fd_close", "i", _wasi_files.fd_close),
    _wasi("fd_datasync", "i", _wasi_files.not_a_file),
    _wasi("fd_fdstat_get", "ii", _wasi_files.fd_fdstat_get),
    _wasi("fd_fdstat_set_flags", "ii", _wasi_files.fd_fdstat_set_flags),
    _wasi("fd_fdstat_set_rights", "iII", _wasi_files.not_a_file),
    _wasi("fd_filestat_get", "ii", _wasi_files.fd_filestat_get),
    _wasi("fd_filestat_set_size", "iI", _wasi_files.not_a_file),
    _wasi("fd_filestat_set_times", "iIIi", _wasi_files.fd_filestat_set_times),
    _wasi("fd_pread", "iiiIi", _wasi_files.fd_pread),
    _wasi("fd_prestat_get", "ii", _wasi_files.fd_prestat_get),
    _wasi("fd_prestat_dir_name", "iii", _wasi_files.fd_prestat_dir_name),
    _wasi("fd_pwrite", "iiiIi", _wasi_files.fd_pwrite),
    _wasi("fd_read", "iiii", _wasi_files.fd_read),
    _wasi("fd_readdir", "iiiIi", _wasi_files.not_a_file),
    _wasi("fd_renumber", "ii", _wasi_files.fd_renumber),
    _wasi("fd_seek", "iIii", _wasi_files.fd_seek),
    _wasi("fd_sync", "i", _wasi_files.not_a_file),
    _wasi("fd_tell", "ii", _wasi_files.fd_tell),
    _wasi("fd_write", "iiii", _wasi_files.fd_write),
    _wasi("path_create_directory", "iii", _wasi_files.not_a_file),
    _wasi("path_filestat_get", "iiiii", _wasi_files.not_a_file),
    _wasi("path_filestat_set_times", "iiiiIIi", _wasi_files.not_a_file),
    _wasi("path_link", "iiiiiii", _wasi_files.not_a_file),
    _wasi("path_open", "iiiiiIIii", _wasi_files.not_a_file),
    _wasi("path_readlink", "iiiiii", _wasi_files.not_a_file),
    _wasi("path_remove_directory", "iii", _wasi_files.not_a_file),
    _wasi("path_rename", "iiiiii", _wasi_files.not_a_file),
    _wasi("path_symlink", "iiiii", _wasi_files.not_a_file),
    _wasi("path_unlink_file", "iii", _wasi_files.not_a_file),
    _wasi("sock_accept", "iii", _wasi_files.sock_accept),
    _wasi("sock_recv", "iiiiii", _wasi_files.sock_recv),
    _wasi("sock_send", "iiiii", _wasi_files.sock_send),
    _wasi("sock_shutdown", "ii", _wasi_files.sock_shutdown),
)

_WASI_PROCESS: Final = (
    _wasi("args_get", "ii", _wasi_process.list_get),
    _wasi("args_sizes_get", "ii", _wasi_process.list_sizes_get),
    _wasi("environ_get", "ii", _wasi_process.list_get),
    _wasi("environ_sizes_get", "ii", _wasi_process.list_sizes_get),
    _wasi("clock_res_get", "ii", _wasi_process.clock_res_get),
    _wasi("clock_time_get", "iIi", _wasi_process.clock_time_get),
    _wasi("poll_oneoff", "iiii", _wasi_poll.poll_oneoff),
    Hostcall(WASI, "proc_exit", "i", "", _wasi_process.proc_exit),
    _wasi("proc_raise", "i", _wasi_process.proc_raise),
    _wasi("random_get", "ii", _wasi_process.random_get),
    _wasi("sched_yield", "", _wasi_process.sched_yield),
)

TABLE: Final = _BASIC + _CHAT + _ABOUT + _FAMILIES + _MEDIA + _EPOLL + _SWITCHED_OFF + _WASI_FILES + _WASI_PROCESS
