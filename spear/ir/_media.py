"""References to bytes: a request carries these, never the bytes of a large object."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from ._model import Model

Mime = Annotated[str, StringConstraints(pattern=r"^[!-~]+/[ -~]+$", max_length=127)]


class InlineMedia(Model):
    """Small data carried in place, standard base64 with padding; the host's limit (64 KiB by default) is not checked
    here."""

    kind: Literal["inline_base64"] = "inline_base64"
    mime: Mime
    data: str

    @field_validator("data")
    @classmethod
    def _is_base64(cls, data: str) -> str:
        try:
            base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("must be standard base64 with padding") from None
        return data

    def decode(self) -> bytes:
        return base64.b64decode(self.data)


class StoredMedia(Model):
    """An object of the host's media store."""

    kind: Literal["sms_file"] = "sms_file"
    uri: Annotated[str, StringConstraints(pattern=r"^smsfile://[A-Za-z0-9_\-]{1,240}$")]
    mime: Mime | None = None
    size: Annotated[int, Field(ge=0)] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


class UrlMedia(Model):
    """Fetched by the host through its egress policy, and only from an origin on its allowlist."""

    kind: Literal["http_url"] = "http_url"
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=8192)]
    mime: Mime | None = None


MediaRef = Annotated[InlineMedia | StoredMedia | UrlMedia, Field(discriminator="kind")]
