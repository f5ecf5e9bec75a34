"""The check that comes before everything: is this a place where guests can run as tasks?

Imported first by the package, before wasmtime is, so that its clear error comes instead of an unclear one from there.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Final

from spear.hostcall._errors import PlatformUnsupported

SUPPORTED_RELEASE: Final = 50
"""The release line of wasmtime whose C structures this file describes."""


LAST_PYTHON: Final = (3, 13)
"""From 3.14 on, CPython compares the stack pointer with the bounds of the thread's stack; code on a guest's own stack,
as in every hostcall, has not been tried with that."""


def check_platform(
    platform: str | None = None, version: str | None = None, python: tuple[int, int] | None = None
) -> None:
    """Raise `PlatformUnsupported` unless this is Linux with the wasmtime release and a Python this was written for."""
    platform = sys.platform if platform is None else platform
    if platform != "linux":
        raise PlatformUnsupported(
            f"guests run as tasks on Linux only, this is {platform!r}; run Spear in a Linux machine or container"
        )
    python = sys.version_info[:2] if python is None else python
    if python > LAST_PYTHON:
        raise PlatformUnsupported(
            f"running guests has not been tried with Python {python[0]}.{python[1]}; use 3.11 to "
            f"{LAST_PYTHON[0]}.{LAST_PYTHON[1]}"
        )
    if version is None:
        try:
            version = metadata.version("wasmtime")
        except metadata.PackageNotFoundError:
            raise PlatformUnsupported(
                f"the package 'wasmtime' is not installed; install 'wasmtime>={SUPPORTED_RELEASE},"
                f"<{SUPPORTED_RELEASE + 1}'"
            ) from None
    if version.partition(".")[0] != str(SUPPORTED_RELEASE):
        raise PlatformUnsupported(
            f"wasmtime {version} is installed, but running guests as tasks needs release {SUPPORTED_RELEASE}; install "
            f"'wasmtime>={SUPPORTED_RELEASE},<{SUPPORTED_RELEASE + 1}'"
        )


check_platform()
