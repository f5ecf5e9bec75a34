"""Names of objects, their addresses and their types: what is checked before any of it meets the file system."""

from __future__ import annotations

import re
import secrets
from typing import Final

from spear.ir import invalid_request

SCHEME: Final = "smsfile://"
_ID: Final = re.compile(r"[0-9a-f]{40}")
_MIME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+( *;[ -~]*)?")
_MIME_CHARACTERS: Final = 127
_TASK_CHARACTERS: Final = 256


def new_id() -> str:
    """160 random bits: whoever has it was given it."""
    return secrets.token_hex(20)


def uri_of(object_id: str) -> str:
    return SCHEME + object_id


def id_of(uri: str) -> str | None:
    """None where it is no address of this store: nothing else may become part of a path."""
    object_id = uri.removeprefix(SCHEME)
    return object_id if object_id != uri and is_id(object_id) else None


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def is_mime(text: str) -> bool:
    return len(text) <= _MIME_CHARACTERS and _MIME.fullmatch(text) is not None


def check_mime(mime: str) -> str:
    """`mime`, or `CallerError` (invalid_request) unless it is `type/subtype`, with parameters or without."""
    if not is_mime(mime):
        shown = ascii(mime[:60])
        raise invalid_request("mime", f"is {shown}; expected type/subtype, at most {_MIME_CHARACTERS} characters")
    return mime


def check_task(task_id: str | None) -> str | None:
    """`task_id`, or `CallerError` (invalid_request) where it cannot be written down."""
    if task_id is not None and (len(task_id) > _TASK_CHARACTERS or not task_id.isprintable()):
        raise invalid_request("task_id", f"expected at most {_TASK_CHARACTERS} printable characters")
    return task_id
