"""`/v1/images/generations` and `/v1/images/edits`, both ways. Pictures come back as base64: the host has no addresses
of its own to give out."""

from __future__ import annotations

from base64 import b64encode
from typing import Unpack

from pydantic import JsonValue

from spear.ir import (
    CallerError,
    ImageRequest,
    ImageResult,
    InlineMedia,
    RequestEnvelope,
    ResponseEnvelope,
    Usage,
    invalid_request,
)
from spear.media import MediaAccess

from ._media_type import media_type
from ._openai_checks import a_string, checked_body, required, wrong
from ._openai_ways import (
    Form,
    OpenAIReply,
    Who,
    envelope,
    error_reply,
    form_fields,
    form_file,
    integer,
    json_reply,
    left_over,
    one,
    taken,
    text_of,
)
from ._operation_request import checked_payload
from ._stored import INLINE_BYTES, reference

_TEXTS = ("size", "quality", "style")


def request_from_openai_image(body: JsonValue, **who: Unpack[Who]) -> RequestEnvelope:
    """Of `/generations`. Raises `CallerError`."""
    rest = dict(checked_body(body))
    fields: dict[str, object] = {"prompt": a_string(required(rest, "prompt", ""), "prompt")}
    del rest["prompt"]
    fields["model"] = a_string(rest.pop("model", ""), "model")
    fields |= {name: text_of(value, name) for name, value in taken(rest, _TEXTS).items()}
    for name, value in taken(rest, ("n", "seed")).items():
        if type(value) is not int:
            raise wrong(name, value, "an integer")
        fields[name] = value
    _check_form(rest.pop("response_format", None))
    _check_stream(rest.pop("stream", None))
    return envelope(checked_payload(ImageRequest, {**fields, "extra": rest}), **who)


async def request_from_openai_image_edit(
    form: Form, media: MediaAccess, *, inline_bytes: int = INLINE_BYTES, **who: Unpack[Who]
) -> RequestEnvelope:
    """Of `/edits`. Raises `CallerError`; larger pictures are stored for the task that asks."""
    rest = form_fields(form, ("image", "mask"))
    prompt = one(rest, "prompt")
    if prompt is None:
        raise invalid_request("prompt", "is missing")
    fields: dict[str, object] = {"prompt": prompt, "model": one(rest, "model") or ""}
    fields |= {name: value for name in _TEXTS if (value := one(rest, name)) is not None}
    fields |= {name: number for name in ("n", "seed") if (number := integer(rest, name)) is not None}
    _check_form(one(rest, "response_format"))
    _check_stream(one(rest, "stream"))
    if form_file(form, "image") is None:
        raise invalid_request("image", "is missing")
    files = [(name, file) for name in ("image", "mask") if (file := form_file(form, name)) is not None]
    types = [media_type(file.data, name, "image", said=file.mime, name=file.name) for name, file in files]
    # Everything that can be wrong has been looked at before anything is stored.
    checked_payload(ImageRequest, {**fields, **{name: _NOTHING for name, _ in files}})
    for (name, file), mime in zip(files, types, strict=True):
        fields[name] = await reference(file.data, mime, media, task_id=who.get("task_id"), inline_bytes=inline_bytes)
    return envelope(checked_payload(ImageRequest, {**fields, "extra": left_over(rest)}), **who)


_NOTHING = InlineMedia(mime="image/png", data="")


def _check_form(value: JsonValue) -> None:
    if value not in {None, "b64_json"} if not isinstance(value, list | dict) else True:
        raise invalid_request("response_format", 'only "b64_json" is offered: pictures come back in the body')


def _check_stream(value: JsonValue) -> None:
    if value is not None and value is not False and value != "false":
        raise invalid_request("stream", "pictures are not streamed; leave it out")


async def openai_images_reply(response: ResponseEnvelope, media: MediaAccess, *, created: int) -> OpenAIReply:
    """`created` in Unix seconds. A picture that is not in the store any more is an error reply."""
    error = response.result.error
    if error is not None:
        return error_reply(error)
    result = response.result.payload
    if not isinstance(result, ImageResult):
        raise TypeError(f"an image request was answered with {type(result).__name__}")
    data: list[JsonValue] = []
    for image in result.images:
        try:
            text = image.data if isinstance(image, InlineMedia) else await _encoded(image, media)
        except CallerError as missing:
            return error_reply(missing.error)
        data.append({"b64_json": text})
    body: dict[str, JsonValue] = {"created": created, "data": data}
    if (usage := _usage(response.usage)) is not None:
        body["usage"] = usage
    return json_reply(body)


async def _encoded(image: object, media: MediaAccess) -> str:
    loaded = await media.load(image, task_id=None)  # type: ignore[arg-type]  # one of the kinds that are not inline
    return b64encode(loaded.data).decode("ascii")


def _usage(usage: Usage) -> JsonValue:
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    received, sent = usage.input_tokens or 0, usage.output_tokens or 0
    return {"input_tokens": received, "output_tokens": sent, "total_tokens": received + sent}
