"""spear_abi_version and spear_last_error: what a guest asks about the host and about its own latest failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spear.hostcall import _json
from spear.hostcall._outbuf import put_out

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

ABI_MAJOR: Final = 1
ABI_MINOR: Final = 1


def abi_version(guest: Guest) -> int:
    return ABI_MAJOR << 16 | ABI_MINOR


def last_error(guest: Guest, out_ptr: int, out_len_ptr: int) -> int:
    return put_out(guest.memory, _json.dump(guest.last_error.value), out_ptr, out_len_ptr)
