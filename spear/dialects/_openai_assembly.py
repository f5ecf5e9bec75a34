"""The chunks of an OpenAI stream, put together to the body that the same request without streaming would have given.

Nothing is dropped. Unknown keys are merged by where they stand: beside `choices` and beside `delta` the last value
that is not null stays and lists beside `delta` grow (log probabilities, token ids); inside a delta strings and lists
grow too (refusal, reasoning, annotations). Objects merge key by key.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Final

from pydantic import JsonValue

from spear.ir import BackendError, ErrorCode, Failure, Operation, make_error

from ._openai_message import Wire

MAX_CHARACTERS: Final = 16 * 1024 * 1024
MAX_CHOICES: Final = 1024
MAX_TOOL_CALLS: Final = 4096
"""Of all choices of an answer together."""
_ENTRY: Final = 64  # what an entry of an object or list costs besides its characters
_OBJECT: Final = 1024  # what one of the objects below costs
_WHOLE: Final = frozenset({"id", "type", "object", "format", "role"})  # strings that do not come in pieces


def broken(message: str) -> BackendError:
    error = make_error(ErrorCode.BACKEND_ERROR, message, operation=Operation.CHAT_COMPLETIONS)
    return BackendError(error, Failure.SERVER)


class Budget:
    """What an assembled body may still take."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._choices = 0
        self._calls = 0

    def add_choice(self) -> None:
        self._choices += 1
        if self._choices > MAX_CHOICES:
            raise broken(f"answer too large: the stream has more than {MAX_CHOICES} choices")

    def add_call(self) -> None:
        self._calls += 1
        if self._calls > MAX_TOOL_CALLS:
            raise broken(f"answer too large: the stream has more than {MAX_TOOL_CALLS} tool calls")

    def take(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise broken(f"response too large: the stream holds more than {self._limit} characters")


def _cost(value: JsonValue | Text | Growing) -> int:
    """Characters, and something for each entry. What grows pays for itself as it grows."""
    if isinstance(value, str):
        return _ENTRY + len(value)
    if isinstance(value, dict):
        return _ENTRY + sum(len(key) + _cost(item) for key, item in value.items())
    if isinstance(value, list):
        return _ENTRY + sum(map(_cost, value))
    return _ENTRY


class Text:
    """A string that comes in pieces."""

    def __init__(self) -> None:
        self._written = io.StringIO()

    def append(self, piece: str) -> None:
        self._written.write(piece)

    def joined(self) -> str:
        return self._written.getvalue()


class Base64Text(Text):
    """A string of base64 whose pieces may have been padded one by one."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def append(self, piece: str) -> None:
        self._pieces.append(piece)

    def joined(self) -> str:
        if any(piece.endswith("=") for piece in self._pieces[:-1]):
            try:
                return base64.b64encode(b"".join(base64.b64decode(p, validate=True) for p in self._pieces)).decode()
            except binascii.Error:
                pass  # the pieces are not base64 each for itself: then they stay as they came
        return "".join(self._pieces)


class Growing:
    """An object that grows by merging. `grow_text` and `grow_lists`: whether strings and lists are appended to or
    replaced; `is_audio`: whether its `data` is base64."""

    def __init__(self, budget: Budget, *, grow_text: bool, grow_lists: bool, is_audio: bool = False) -> None:
        self._budget = budget
        self._grow_text = grow_text
        self._grow_lists = grow_lists
        self._is_audio = is_audio
        self._values: dict[str, JsonValue | Text | Growing] = {}

    def has(self, key: str, value: JsonValue) -> bool:
        """Whether merging `value` would change nothing. Not for what grows."""
        if value is None:
            return key in self._values
        old = self._values.get(key)
        return old == value and type(old) is type(value)

    def merge(self, key: str, new: JsonValue) -> None:
        if key not in self._values:
            self._budget.take(_ENTRY + len(key))
            self._values[key] = None
        if new is None:
            return
        old = self._values[key]
        if isinstance(new, dict):
            self._merge_object(key, old, new)
        elif isinstance(new, str) and self._grow_text and key not in _WHOLE:
            self._merge_text(key, old, new)
        elif isinstance(new, list) and self._grow_lists:
            self._merge_list(key, old, new)
        elif old != new or type(old) is not type(new):
            self._budget.take(_cost(new) - (0 if isinstance(old, Text | Growing) else _cost(old)))
            self._values[key] = new

    def _merge_object(self, key: str, old: JsonValue | Text | Growing, new: Wire) -> None:
        if not isinstance(old, Growing):
            self._budget.take(_OBJECT)
            old = Growing(self._budget, grow_text=self._grow_text, grow_lists=self._grow_lists, is_audio=key == "audio")
            self._values[key] = old
        for inner, value in new.items():
            old.merge(inner, value)

    def _merge_text(self, key: str, old: JsonValue | Text | Growing, new: str) -> None:
        if isinstance(old, list):  # content that came as parts before
            self._budget.take(3 * _ENTRY + len(new))
            old.append({"type": "text", "text": new})
            return
        is_base64 = self._is_audio and key == "data"
        self._budget.take(len(new) + (_ENTRY if is_base64 else 0))
        if not isinstance(old, Text):
            self._budget.take(_OBJECT)
            self._values[key] = old = Base64Text() if is_base64 else Text()
        old.append(new)

    def _merge_list(self, key: str, old: JsonValue | Text | Growing, new: list[JsonValue]) -> None:
        self._budget.take(_cost(new))
        if isinstance(old, list):
            old.extend(new)
        elif isinstance(old, Text) and (said := old.joined()):  # content that turns from text to parts
            self._values[key] = [{"type": "text", "text": said}, *new]
        else:
            self._values[key] = list(new)

    def value(self) -> Wire:
        return {key: _final(value) for key, value in self._values.items()}


def _final(value: JsonValue | Text | Growing) -> JsonValue:
    if isinstance(value, Growing):
        return value.value()
    return value.joined() if isinstance(value, Text) else value


class Call:
    """One tool call in the making; `number` is its place among the calls of its choice."""

    def __init__(self, number: int, budget: Budget) -> None:
        self.number = number
        self.id = ""
        self.name = ""
        self.type = "function"
        self._arguments = Text()
        self._budget = budget
        self._extra = Growing(budget, grow_text=True, grow_lists=True)
        self._function_extra = Growing(budget, grow_text=True, grow_lists=True)

    def merge(self, wire: Wire) -> str:
        """Take a fragment; returns what it adds to the arguments."""
        for key, value in wire.items():
            if key == "function" and isinstance(value, dict):
                continue
            if key == "id" and isinstance(value, str):
                self.id = self.id or value  # some servers make up a new one for each fragment
            elif key == "type" and isinstance(value, str):
                self.type = value or self.type
            elif value is not None and key != "index":
                self._extra.merge(key, value)
        function = wire.get("function")
        return self._merge_function(function) if isinstance(function, dict) else ""

    def _merge_function(self, function: Wire) -> str:
        added = ""
        for key, value in function.items():
            if key == "name" and isinstance(value, str):
                self.name = self.name or value
            elif key == "arguments" and isinstance(value, str):
                self._budget.take(len(value))
                self._arguments.append(value)
                added = value
            elif value is not None:
                self._function_extra.merge(key, value)
        return added

    def value(self) -> Wire:
        function: Wire = {"name": self.name, "arguments": self._arguments.joined(), **self._function_extra.value()}
        return {"id": self.id, "type": self.type, "function": function, **self._extra.value()}


class Choice:
    """One choice in the making."""

    def __init__(self, index: int, budget: Budget) -> None:
        budget.add_choice()
        budget.take(2 * _OBJECT)
        self.index = index
        self.finished = False
        self.beside = Growing(budget, grow_text=False, grow_lists=True)
        self.message = Growing(budget, grow_text=True, grow_lists=True)
        self.calls: list[Call] = []
        self._at: dict[int, Call] = {}
        self._budget = budget

    def call_for(self, wire: Wire) -> Call:
        """The call that a fragment belongs to. Some servers leave `index` out, or send 0 for every call: a new id
        together with a name is a new call."""
        index, call_id = wire.get("index"), wire.get("id")
        function = wire.get("function")
        named = isinstance(function, dict) and bool(function.get("name"))
        new_id = isinstance(call_id, str) and call_id != ""
        if type(index) is int:
            call = self._at.get(index)
        elif new_id:
            call = next((known for known in self.calls if known.id == call_id), None)
        else:
            call = self.calls[-1] if self.calls else None
        if call is None or (new_id and named and call.id not in {"", call_id}):
            self._budget.add_call()
            self._budget.take(2 * _OBJECT)
            call = Call(len(self.calls), self._budget)
            self.calls.append(call)
            if type(index) is int:
                self._at[index] = call
        return call

    def value(self) -> Wire:
        message: Wire = {"role": "assistant", "content": None, **self.message.value()}
        if self.calls:
            message["tool_calls"] = [call.value() for call in self.calls]
        return {"index": self.index, "message": message, "finish_reason": None, **self.beside.value()}
