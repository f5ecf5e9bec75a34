"""JSON-RPC as MCP speaks it: messages out of bytes, bytes out of messages, and how much unasked talk is borne. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from spear.ir import MalformedJson, dump_json, parse_json

from ._failures import ConnectionLost

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""Of one message of a server; a longer one ends the connection."""
MAX_MESSAGE_VALUES: Final = 500_000
"""JSON values of one message; more ends the connection. A value may have two bytes, and takes a hundred in memory and a
microsecond of everybody's time."""
MAX_UNASKED_BYTES: Final = 16 * 1024 * 1024
"""Of what nobody asked for, on top of `UNASKED_BYTES_PER_S`; more ends the connection."""
UNASKED_BYTES_PER_S: Final = 65_536
_ERROR_CHARS: Final = 512
METHOD_NOT_FOUND: Final = -32601

Id = int | str


@dataclass(frozen=True, slots=True)
class Answer:
    id: int
    result: Any = None
    error: str | None = None
    """None = it is a success."""


@dataclass(frozen=True, slots=True)
class Question:
    """The server wants something of us."""

    id: Id
    method: str


@dataclass(frozen=True, slots=True)
class Notice:
    method: str


@dataclass(frozen=True, slots=True)
class Garbage:
    why: str


Message = Answer | Question | Notice | Garbage


def request(number: int, method: str, params: dict[str, Any]) -> bytes:
    return dump_json({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def notification(method: str, params: dict[str, Any] | None = None) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return dump_json(message)


def reply(question: Question) -> bytes:
    """A ping is answered; nothing else that a server may ask of a client is offered here."""
    if question.method == "ping":
        return dump_json({"jsonrpc": "2.0", "id": question.id, "result": {}})
    error = {"code": METHOD_NOT_FOUND, "message": "not supported by this client"}
    return dump_json({"jsonrpc": "2.0", "id": question.id, "error": error})


def read_message(data: bytes) -> Message:
    """What is no message is `Garbage`. Raises `ConnectionLost` for one of too many values."""
    if _surely_over(data, MAX_MESSAGE_VALUES):
        raise ConnectionLost(f"the server sent a message of more than {MAX_MESSAGE_VALUES} values")
    try:
        value = parse_json(data)
    except MalformedJson as error:
        return Garbage(f"not JSON: {error}")
    return read_value(value)


_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # linear: it never goes back


def _surely_over(data: bytes, most: int) -> bool:
    """By its punctuation: every comma outside of strings stands before a value, and every opening bracket is one."""
    return _marks(data) > 2 * most and _marks(_STRING.sub(b"", data)) > 2 * most


def _marks(data: bytes) -> int:
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def read_value(value: Any) -> Message:
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        return Garbage("no JSON-RPC 2.0 message")
    number, method = value.get("id"), value.get("method")
    if isinstance(method, str):
        if number is None:
            return Notice(method)
        if isinstance(number, int | str) and not isinstance(number, bool):
            return Question(number, method)
        return Garbage("a request without a usable id")
    if not isinstance(number, int) or isinstance(number, bool):
        return Garbage("an answer to no request of ours")
    has_error, has_result = value.get("error") is not None, "result" in value
    if has_error == has_result:
        return Answer(number, error="an answer that is neither a result nor an error")
    return Answer(number, error=_said(value["error"])) if has_error else Answer(number, value["result"])


def _said(error: Any) -> str:
    """The server's own words, in one line."""
    text = error.get("message") if isinstance(error, dict) else None
    line = " ".join(text.split())[:_ERROR_CHARS] if isinstance(text, str) else ""
    return line or "an error without a message"


class Lines:
    """Lines out of what comes in pieces. Holds at most one unfinished line, of at most `MAX_MESSAGE_BYTES`."""

    def __init__(self, most: int = MAX_MESSAGE_BYTES) -> None:
        self._most = most
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends; empty ones are left out. Raises `ConnectionLost`."""
        *whole, rest = data.split(b"\n")
        found: list[bytes] = []
        for piece in whole:
            self._keep(piece)
            line = b"".join(self._parts).strip()
            self._parts, self._size = [], 0
            if line:
                found.append(line)
        if rest:
            self._keep(rest)
        return found

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._most:
            raise ConnectionLost(f"the server sent a message of more than {self._most} bytes")
        self._parts.append(piece)


class Unasked:
    """A leaky bucket of bytes that nobody asked for."""

    def __init__(self, now: float) -> None:
        self._held = 0.0
        self._then = now

    def add(self, size: int, now: float) -> None:
        """Raises `ConnectionLost` where it is too much."""
        self._held = max(0.0, self._held - (now - self._then) * UNASKED_BYTES_PER_S) + size
        self._then = now
        if self._held > MAX_UNASKED_BYTES:
            raise ConnectionLost("the server floods: too much that nobody asked for")
