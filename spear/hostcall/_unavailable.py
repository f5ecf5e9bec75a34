"""Families that link, so that guests which merely mention them start, but are switched off on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spear.hostcall._errno import ENOSYS

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest


def unavailable(guest: Guest, *arguments: int) -> int:
    return ENOSYS
