"""What an instance can do: the data that the router's filter compares requests with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ._model import Hosting, Model, Operation, Transport

_Limit = Annotated[int, Field(ge=1)] | None


class Limits(Model):
    """All optional; None = no limit."""

    max_inflight: _Limit = None
    max_queue: Annotated[int, Field(ge=0)] | None = None
    rpm: _Limit = None
    """Requests a minute."""
    tpm: _Limit = None
    """Tokens a minute, input and output."""
    input_tpm: _Limit = None
    output_tpm: _Limit = None
    rpd: _Limit = None
    """Requests in any 24 hours."""
    tpd: _Limit = None
    max_input_tokens: _Limit = None
    max_output_tokens: _Limit = None
    max_batch: _Limit = None
    max_audio_seconds: _Limit = None
    max_image_size: _Limit = None
    """Pixels of the longer side."""
    max_images_per_request: _Limit = None
    max_chars: _Limit = None
    max_payload_bytes: _Limit = None
    max_sessions: _Limit = None
    max_session_seconds: _Limit = None
    max_frame_bytes: _Limit = None
    supported_formats: tuple[str, ...] | None = None
    supported_voices: tuple[str, ...] | None = None


class Capabilities(Model):
    ops: tuple[Operation, ...]
    features: tuple[str, ...] = ()
    transports: tuple[Transport, ...] = ()
    limits: Limits = Limits()
    hosting: Hosting = Hosting.REMOTE
