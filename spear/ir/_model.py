"""The base of every IR model, and the names that are enumerated."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

VERSION: Final = 1


class Model(BaseModel):
    """Frozen; an unknown key is an error, never dropped: what has no field of its own stands in an `extra` map."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, ser_json_bytes="base64")


class Operation(StrEnum):
    CHAT_COMPLETIONS = "chat_completions"
    EMBEDDINGS = "embeddings"
    IMAGE_GENERATION = "image_generation"
    SPEECH_TO_TEXT = "speech_to_text"
    TEXT_TO_SPEECH = "text_to_speech"
    REALTIME_VOICE = "realtime_voice"


class Transport(StrEnum):
    IN_PROCESS = "in_process"
    HTTP = "http"
    WEBSOCKET = "websocket"
    GRPC = "grpc"


class Hosting(StrEnum):
    LOCAL = "local"
    REMOTE = "remote"


class Feature(StrEnum):
    """The features the code knows. The set is open: a configuration may name others, compared as strings."""

    STREAM = "supports_stream"
    TOOLS = "supports_tools"
    JSON_SCHEMA = "supports_json_schema"
    SYSTEM_ROLE = "supports_system_role"
    IMAGE_INPUT = "supports_image_input"
    AUDIO_INPUT = "supports_audio_input"
    AUDIO_OUTPUT = "supports_audio_output"
    BATCH = "supports_batch"
    DIMENSIONS = "supports_dimensions"
    MASK = "supports_mask"
    SEED = "supports_seed"
    TIMESTAMPS = "supports_timestamps"
    LANGUAGE = "supports_language"
    DIARIZATION = "supports_diarization"
    VOICES = "supports_voices"
    FORMATS = "supports_formats"
    SSML = "supports_ssml"
    BIDI_STREAM = "supports_bidi_stream"
