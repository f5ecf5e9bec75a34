"""The error numbers of WASI preview1 that this host returns. They are not the ones of the `spear` module."""

from __future__ import annotations

from typing import Final

SUCCESS: Final = 0
BADF: Final = 8
FAULT: Final = 21
INVAL: Final = 28
NOTDIR: Final = 54
NOTSOCK: Final = 57
NOTSUP: Final = 58
SPIPE: Final = 70
