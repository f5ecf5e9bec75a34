"""The options of an instance: how a key is said, and for each operation where to ask, in which words, and where in the
answer things stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import JsonValue

from spear.ir import Operation

from ._pointer import Pointer, read_pointer
from ._template import Body, read_body
from ._values import EXTRA, NAMES, is_known

_NEEDED: Final = {
    Operation.CHAT_COMPLETIONS: "text",
    Operation.EMBEDDINGS: "vectors",
    Operation.IMAGE_GENERATION: "images",
    Operation.SPEECH_TO_TEXT: "text",
    Operation.TEXT_TO_SPEECH: "audio",
}
_USAGE: Final = ("input_tokens", "output_tokens")
_POINTERS: Final = {
    Operation.CHAT_COMPLETIONS: ("text", "finish_reason", "reasoning", "tool_calls", "answer_model", *_USAGE),
    Operation.EMBEDDINGS: ("vectors", "answer_model", "input_tokens"),
    Operation.IMAGE_GENERATION: ("images", "answer_model", *_USAGE),
    Operation.SPEECH_TO_TEXT: ("text", "detected_language", "duration_s", "answer_model", *_USAGE),
    Operation.TEXT_TO_SPEECH: ("audio", "answer_model", *_USAGE),
}
T = TypeVar("T")
OPERATIONS: Final = tuple(_NEEDED)
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_PATH: Final = re.compile(r"/[A-Za-z0-9._~%!$&'()*+,;=:@/?-]*")
_NOT_HERE: Final = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "host", "content-length",
        "content-type", "accept", "accept-encoding", "connection", "transfer-encoding", "te", "upgrade", "expect",
        "user-agent",
    }
)  # fmt: skip
_SHARED: Final = ("headers", "key_header", "key_prefix")


@dataclass(frozen=True, slots=True)
class OperationSettings:
    path: str
    method: str
    body: Body
    pointers: Mapping[str, Pointer]
    error: Pointer | None
    """Where a 200 says that it is none."""
    mime: str
    """Of the speech in an answer."""


@dataclass(frozen=True, slots=True)
class Settings:
    key_header: bytes
    key_prefix: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    operations: Mapping[Operation, OperationSettings]


def read_settings(options: Mapping[str, JsonValue]) -> Settings:
    """Raises ValueError, naming the option and what would be right."""
    known = (*_SHARED, *(each.value for each in OPERATIONS))
    for key in options:
        if key not in known:
            raise ValueError(f"options.{key}: unknown; this kind has {', '.join(known)}")
    operations = {each: _operation(each, options[each.value]) for each in OPERATIONS if each.value in options}
    if not operations:
        names = ", ".join(each.value for each in OPERATIONS)
        raise ValueError(f"options: describes no operation; write a table for at least one of {names}")
    header = options.get("key_header", "Authorization")
    if not isinstance(header, str) or not _HEADER_NAME.fullmatch(header):
        raise ValueError('options.key_header: must be the name of a header such as "X-Api-Key"')
    prefix = options.get("key_prefix", "Bearer " if header.lower() == "authorization" else "")
    if not isinstance(prefix, str) or not _is_printable(prefix, most=32):
        raise ValueError('options.key_prefix: must be a short text such as "Bearer "')
    return Settings(header.encode(), prefix.encode(), _headers(options.get("headers", {})), operations)


def _headers(given: JsonValue) -> tuple[tuple[bytes, bytes], ...]:
    if not isinstance(given, dict):
        raise ValueError('options.headers: must be a table such as { "X-Tenant" = "a" }')
    headers = []
    for name, value in given.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError("options.headers: has a key that is not the name of a header")
        if name.lower() in _NOT_HERE:
            raise ValueError(f"options.headers.{name}: cannot be set here; a key goes into credentials")
        if not isinstance(value, str) or not _is_printable(value, most=1024):
            raise ValueError(f"options.headers.{name}: must be a text of printable ASCII")
        headers.append((name.encode(), value.encode()))
    return tuple(headers)


def _operation(operation: Operation, given: JsonValue) -> OperationSettings:
    place = f"options.{operation.value}"
    if not isinstance(given, dict):
        raise ValueError(f"{place}: must be a table")
    known = ("path", "method", "body", "error", "mime", *_POINTERS[operation])
    for key in given:
        if key not in known:
            raise ValueError(f"{place}.{key}: unknown; this operation has {', '.join(known)}")
    for key in ("path", "body", _NEEDED[operation]):
        if key not in given:
            raise ValueError(f"{place}.{key}: is missing")
    path, method, mime = given["path"], given.get("method", "POST"), given.get("mime", "audio/wav")
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ValueError(f'{place}.path: must begin with a slash and have no blanks, such as "/generate"')
    if not isinstance(method, str) or method not in {"POST", "PUT"}:
        raise ValueError(f'{place}.method: must be "POST" or "PUT"')
    if not isinstance(mime, str) or not re.fullmatch(r"audio/[a-z0-9.+-]{1,40}", mime):
        raise ValueError(f'{place}.mime: must be a type of audio such as "audio/wav"')
    names = ", ".join((*NAMES[operation], f"{EXTRA}NAME"))
    body = _said(f"{place}.body", lambda: read_body(given["body"], lambda name: is_known(operation, name), names))
    pointers = {
        key: _said(f"{place}.{key}", lambda key=key: read_pointer(given[key]))  # type: ignore[misc]
        for key in _POINTERS[operation]
        if key in given
    }
    error = _said(f"{place}.error", lambda: read_pointer(given["error"])) if "error" in given else None
    return OperationSettings(path, method, body, pointers, error, mime)


def _said(place: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _is_printable(text: str, *, most: int) -> bool:
    return text.isascii() and text.isprintable() and len(text) <= most
