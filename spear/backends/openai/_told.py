"""What an answer with status 200 says of itself, whatever the operation."""

from __future__ import annotations

from pydantic import JsonValue

from spear.backends._http import redacted
from spear.backends._http._failures import Redact
from spear.dialects.openai_chat import one_line, told_error


def check_error(value: JsonValue, redact: Redact) -> None:
    """Raise for an error that came with status 200."""
    if isinstance(value, dict) and (value.get("error") is not None or value.get("object") == "error"):
        told = redacted(value, redact)
        assert isinstance(told, dict)
        raise told_error(told, "in an answer with status 200", one_line)


def model_of(value: JsonValue) -> str:
    model = value.get("model") if isinstance(value, dict) else None
    return model if isinstance(model, str) else ""
