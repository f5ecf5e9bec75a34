"""What the operations besides chat share: an instance's client, its options, the model of a request, and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httpx

from spear.backends._http import HttpClient
from spear.ir import InlineMedia, MediaRef, RequestEnvelope, RequestPayload, invalid_request
from spear.media import MediaAccess, MediaBytes

from ._options import Options
from ._places import Place

MAX_UPLOAD: Final = 64 * 1024 * 1024
"""Bytes of a recording or a picture that is sent; more than any server of this dialect takes."""
MAX_MEDIA: Final = 64 * 1024 * 1024
"""Bytes of an answer that is, or has in it, pictures or speech."""


@dataclass(frozen=True, slots=True)
class Operations:
    """One open instance."""

    client: HttpClient
    place: Place
    options: Options

    @property
    def media(self) -> MediaAccess:
        return self.client.host.media

    def model(self, payload: RequestPayload) -> str:
        model = (self.client.instance.model or "").strip() or payload.model.strip()
        if not model:
            raise invalid_request("model", "is blank, and the backend's configuration has none either; name one")
        return model

    def url(self, path: str, model: str) -> httpx.URL:
        return self.place(path, model)

    async def load(self, ref: MediaRef, request: RequestEnvelope) -> MediaBytes:
        """Bytes to send. Raises `CallerError` for those that cannot be had."""
        if isinstance(ref, InlineMedia):
            return MediaBytes(ref.decode(), ref.mime)
        return await self.media.load(ref, task_id=request.task_id, max_bytes=MAX_UPLOAD)
