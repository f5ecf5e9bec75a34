"""The options of an instance: what its server does differently, where that cannot be seen from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from pydantic import JsonValue

AZURE_API_VERSION: Final = "2024-10-21"
"""The latest of the addresses with deployments that is generally available; some operations need a later one."""
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "image_response_format": ("auto", "b64_json", "url", "none"),
    "transcription_format": ("json", "verbose_json"),
    "embeddings_encoding": ("float", "base64"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """`image_response_format`: what is asked for; `auto` = b64_json, and nothing of models that do not know the field.
    `transcription_format`: where nobody asks for timestamps; `verbose_json` tells how long the recording is.
    `embeddings_encoding`: how vectors travel; base64 is a quarter of the size. `voice`: where a request names none."""

    image_response_format: str = "auto"
    transcription_format: str = "json"
    embeddings_encoding: str = "float"
    voice: str = "alloy"
    api_version: str = AZURE_API_VERSION


def read_options(given: Mapping[str, JsonValue], *, azure: bool = False) -> Options:
    """Raises ValueError that names the option."""
    known = [each.name for each in fields(Options) if azure or each.name != "api_version"]
    read: dict[str, str] = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"options.{name}: unknown; this kind knows {', '.join(known)}")
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"options.{name}: must be a string that is not blank")
        choices = _CHOICES.get(name)
        if choices is not None and value not in choices:
            raise ValueError(f"options.{name}: must be one of {', '.join(choices)}")
        read[name] = value.strip()
    return Options(**read)
