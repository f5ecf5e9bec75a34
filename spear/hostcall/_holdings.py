"""What the sessions and responses of one guest make the host hold, all together under one cap.

Linear memory has its own limit; this is about what a guest puts *outside* of it. Text counts with its bytes. A message,
a tool or a parameter is more than its text, and a parsed value much more than the two bytes of `{}`, so they have a
price of their own: rough, but never far below what CPython uses.
"""

from __future__ import annotations

from typing import Final

from spear.hostcall._errno import ENOMEM, Refused

ITEM_BYTES: Final = 512
VALUE_BYTES: Final = 256


class Holdings:
    __slots__ = ("_max", "bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self.bytes = 0

    def fits(self, size: int) -> bool:
        return self.bytes + size <= self._max

    def take(self, size: int) -> None:
        """Raises `Refused` (-12) beyond the cap, and then takes nothing. A negative size gives back."""
        if size > 0 and not self.fits(size):
            raise Refused(ENOMEM)
        self.bytes += size

    def force(self, size: int) -> None:
        """Take a small amount that cannot be refused any more."""
        self.bytes += size
