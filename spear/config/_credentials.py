"""Reading the value of a credential from where it lives: once, at load, and only of credentials that are in use."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Final

from spear.secrets import Secret

MAX_FILE_BYTES: Final = 65_536

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


class UnusableCredential(ValueError):
    """The value is there but cannot be a key; the message says why and never quotes it."""


def is_variable_name(text: str) -> bool:
    return _VARIABLE.fullmatch(text) is not None


def from_environment(name: str, environ: Mapping[str, str]) -> Secret | None:
    """None where the variable is missing or empty."""
    return _checked(environ.get(name, ""), "the variable")


def from_file(path: FilePath) -> Secret | None:
    """None where the file is missing or empty. Does not wait on what is no regular file."""
    try:
        # Not blocking: opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UnusableCredential(f"the file cannot be read: {_reason(error)}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnusableCredential("is not a regular file")
        data = _read(descriptor)
    except OSError as error:
        raise UnusableCredential(f"the file cannot be read: {_reason(error)}") from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise UnusableCredential(f"the file is larger than {MAX_FILE_BYTES} bytes; expected one key and nothing else")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UnusableCredential("the file is not text") from None
    return _checked(text, "the file")


def _read(descriptor: int) -> bytes:
    """All of it, or so much that it is known to be too much."""
    data = b""
    while len(data) <= MAX_FILE_BYTES and (more := os.read(descriptor, MAX_FILE_BYTES + 1)):
        data += more
    return data


def _checked(text: str, where: str) -> Secret | None:
    text = text.strip()
    if not text:
        return None
    if not text.isprintable():
        # It will stand in a header, where a line break would begin another one.
        raise UnusableCredential(f"{where} has line breaks or control characters; expected one key and nothing else")
    return Secret(text)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "not a usable path"
