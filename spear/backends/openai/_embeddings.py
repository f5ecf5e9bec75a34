"""Embeddings: one exchange, and one vector for each input."""

from __future__ import annotations

from spear.backends._http import vectors_of
from spear.backends._protocol import Answer, Call
from spear.dialects.openai_embeddings import embeddings_body, embeddings_from_body
from spear.ir import EmbeddingsRequest, RequestEnvelope, dump_json

from ._operation import Operations
from ._told import check_error, model_of


async def embed(to: Operations, request: RequestEnvelope, embeddings: EmbeddingsRequest, call: Call) -> Answer:
    model = to.model(embeddings)
    body = embeddings_body(embeddings, model=model)
    if to.options.embeddings_encoding == "base64":
        body.setdefault("encoding_format", "base64")
    async with to.client.post(to.url("/embeddings", model), dump_json(body), call) as received:
        value = await vectors_of(received, to.client.mask, len(embeddings.input))
    check_error(value, to.client.redact)
    result, usage = embeddings_from_body(value, embeddings)
    return Answer(result, usage, model_of(value), raw=value if to.client.host.debug_raw else None)
