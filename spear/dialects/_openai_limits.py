"""How much structure an answer may have: what is small in bytes can be slow to turn into the IR.

Megabytes of text in one string cost next to nothing; hundreds of thousands of objects stop everything else for
seconds. So the parts of an answer are counted before it is parsed, and its choices and calls before it is converted.
"""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from spear.ir import BackendError

from ._openai_assembly import MAX_CHOICES, MAX_TOOL_CALLS, broken

MAX_PARTS: Final = 500_000
"""Values and keys of one JSON text, roughly: its commas and opening brackets outside of strings."""


class PartCounter:
    """Counts the parts of a JSON text that comes in pieces, wherever it is cut. What is no JSON gets some number."""

    def __init__(self) -> None:
        self.parts = 0
        self._in_string = False
        self._held = b""

    def feed(self, piece: bytes) -> None:
        data = self._held + piece
        backslashes = len(data) - len(data.rstrip(b"\\"))
        self._held = b"\\" if backslashes % 2 else b""  # what it escapes is in the next piece
        data = data[: len(data) - len(self._held)]
        texts = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b"".join(texts[self._in_string :: 2])
        self._in_string ^= len(texts) % 2 == 0
        self.parts += bracket_count(outside)


def bracket_count(data: bytes) -> int:
    """Commas and opening brackets, those inside of strings too: never less than the parts."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def too_many_parts(limit: int = MAX_PARTS) -> BackendError:
    return broken(f"answer too large: it has more than {limit} JSON values")


def check_answer_size(value: JsonValue) -> None:
    """Raises `BackendError` for a chat.completion of too many choices or tool calls."""
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list):
        return
    if len(choices) > MAX_CHOICES:
        raise broken(f"answer too large: it has more than {MAX_CHOICES} choices")
    calls = 0
    for choice in choices:
        message = choice.get("message") if isinstance(choice, dict) else None
        made = message.get("tool_calls") if isinstance(message, dict) else None
        calls += len(made) if isinstance(made, list) else 0
    if calls > MAX_TOOL_CALLS:
        raise broken(f"answer too large: it has more than {MAX_TOOL_CALLS} tool calls")
