"""Embeddings: one exchange, and one vector for each input."""

from __future__ import annotations

from typing import Final

from spear.backends._http import json_of
from spear.backends._protocol import Answer, Call
from spear.dialects.openai_embeddings import embeddings_body, embeddings_from_body
from spear.ir import EmbeddingsRequest, RequestEnvelope, dump_json

from ._operation import Operations
from ._told import check_error, model_of

_BYTES_EACH: Final = 256 * 1024
_PARTS_EACH: Final = 16_384
"""Of a vector in an answer: more than any model's, and little enough that no answer is a burden."""
_BESIDE: Final = 64 * 1024
_MOST_BYTES: Final = 64 * 1024 * 1024
_MOST_PARTS: Final = 4_000_000


async def embed(to: Operations, request: RequestEnvelope, embeddings: EmbeddingsRequest, call: Call) -> Answer:
    model = to.model(embeddings)
    body = embeddings_body(embeddings, model=model)
    if to.options.embeddings_encoding == "base64":
        body.setdefault("encoding_format", "base64")
    count = len(embeddings.input)
    async with to.client.post(to.url("/embeddings", model), dump_json(body), call) as received:
        value = await json_of(
            received,
            to.client.mask,
            limit=min(_MOST_BYTES, _BESIDE + count * _BYTES_EACH),
            parts=min(_MOST_PARTS, _BESIDE + count * _PARTS_EACH),
            exact=False,
        )
    check_error(value, to.client.redact)
    result, usage = embeddings_from_body(value, embeddings)
    return Answer(result, usage, model_of(value), raw=value if to.client.host.debug_raw else None)
