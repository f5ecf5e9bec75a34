"""`/v1/embeddings`, both ways.

Inputs are texts. Arrays of tokens are refused: the ids mean nothing to a model with another tokenizer, and the router
may choose one.
"""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from typing import Unpack

from pydantic import JsonValue

from spear.ir import (
    EmbeddingsRequest,
    EmbeddingsResult,
    ErrorCode,
    RequestEnvelope,
    ResponseEnvelope,
    invalid_request,
    make_error,
)

from ._openai_checks import a_string, checked_body, required, wrong
from ._openai_ways import OpenAIReply, Who, envelope, error_reply, json_reply, must_be, taken
from ._operation_request import checked_payload

_FORMATS = ("float", "base64")


def request_from_openai_embeddings(body: JsonValue, **who: Unpack[Who]) -> RequestEnvelope:
    """Raises `CallerError`."""
    rest = dict(checked_body(body))
    texts = _texts(required(rest, "input", ""))
    del rest["input"]
    typed = taken(rest, ("dimensions", "encoding_format"))
    if (dimensions := typed.get("dimensions")) is not None and (type(dimensions) is not int or dimensions < 1):
        raise wrong("dimensions", dimensions, "an integer, at least 1")
    if (form := typed.get("encoding_format")) is not None and form not in _FORMATS:
        raise must_be("encoding_format", _FORMATS)
    model = a_string(rest.pop("model", ""), "model")
    fields: dict[str, object] = {**typed, "model": model, "input": texts, "extra": rest}
    return envelope(checked_payload(EmbeddingsRequest, fields), **who)


def _texts(value: JsonValue) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise wrong("input", value, "a string or an array of strings")
    for index, item in enumerate(value):
        if isinstance(item, int | list) and not isinstance(item, bool):
            message = "arrays of tokens are not taken, as their meaning depends on the model; send the text"
            raise invalid_request("input", message)
        a_string(item, f"input[{index}]")
    return tuple(item for item in value if isinstance(item, str))


def openai_embeddings_reply(response: ResponseEnvelope, request: RequestEnvelope) -> OpenAIReply:
    """In the encoding that was asked for, whichever the backend used."""
    error = response.result.error
    if error is not None:
        return error_reply(error)
    result, asked = response.result.payload, request.payload
    if not isinstance(result, EmbeddingsResult) or not isinstance(asked, EmbeddingsRequest):
        raise TypeError(f"an embeddings request was answered with {type(result).__name__}")
    try:
        data: list[JsonValue] = [
            {"object": "embedding", "index": index, "embedding": each}
            for index, each in enumerate(_encoded(result, asked.encoding_format == "base64"))
        ]
    except OverflowError:
        message = "the backend's vectors have numbers that do not fit 32 bits, as base64 needs; ask for float"
        return error_reply(make_error(ErrorCode.BACKEND_ERROR, message))
    tokens = response.usage.input_tokens or 0
    model = response.backend.model if response.backend is not None and not request.model else request.model
    usage: JsonValue = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_reply({"object": "list", "data": data, "model": model, "usage": usage})


def _encoded(result: EmbeddingsResult, as_base64: bool) -> Iterator[JsonValue]:
    if result.vectors is not None:
        for vector in result.vectors:
            yield packed(vector) if as_base64 else list(vector)
    else:
        for text in result.base64 or ():
            yield text if as_base64 else list(unpacked(text))


def packed(vector: Sequence[float]) -> str:
    """32-bit little-endian floats, base64."""
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def unpacked(text: str) -> tuple[float, ...]:
    data = b64decode(text)
    return struct.unpack(f"<{len(data) // 4}f", data)
