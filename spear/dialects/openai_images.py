"""OpenAI's image dialect: POST …/images/generations (JSON) and …/images/edits (a form)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from spear.ir import ImageRequest, Operation, Usage

from ._broken import unusable
from ._openai_message import Wire
from ._picture import NotAPicture, read_picture

MAX_PICTURES: Final = 16
"""Of one answer."""
_OURS: Final = frozenset({"model", "prompt", "image", "mask"})
_TYPED: Final = ("n", "size", "quality", "style", "seed")


@dataclass(frozen=True, slots=True)
class ReceivedImage:
    """One image of an answer: its bytes, looked at, or the address where it can be fetched."""

    data: bytes = b""
    mime: str = ""
    url: str = ""


def image_body(request: ImageRequest, *, model: str, response_format: str | None) -> Wire:
    """Of a generation; of an edit, the fields of the form beside its files. `response_format` None: the server's own
    choice, for models that do not know the field. `extra` goes over all but model and prompt."""
    body: Wire = {"model": model, "prompt": request.prompt}
    for name in _TYPED:
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if response_format is not None:
        body["response_format"] = response_format
    for key, item in request.extra.items():
        if key not in _OURS:
            body[key] = item
    return body


def images_from_body(value: JsonValue) -> tuple[list[ReceivedImage], Wire, Usage]:
    """The images in their order, the other keys of the answer, and what was used. Raises `BackendError`."""
    if not isinstance(value, dict) or not isinstance(data := value.get("data"), list) or not data:
        raise wrong_image("the answer has no images")
    if len(data) > MAX_PICTURES:
        raise wrong_image(f"more than {MAX_PICTURES} images")
    images = [_image(item, place) for place, item in enumerate(data)]
    extra: Wire = {key: item for key, item in value.items() if key not in {"data", "usage"}}
    prompts = [item.get("revised_prompt") if isinstance(item, dict) else None for item in data]
    if any(prompt is not None for prompt in prompts):
        extra["revised_prompts"] = prompts
    return images, extra, _usage(value.get("usage"), len(images))


def checked_image(data: bytes, place: int) -> ReceivedImage:
    """Raises `BackendError` for bytes that are no whole picture of a usable size, whatever they are said to be."""
    try:
        return ReceivedImage(data, read_picture(data).mime)
    except NotAPicture as error:
        raise wrong_image(f"image {place} is {error}") from None


def _image(item: JsonValue, place: int) -> ReceivedImage:
    if not isinstance(item, dict):
        raise wrong_image(f"data[{place}] is not an object")
    text, url = item.get("b64_json"), item.get("url")
    if isinstance(url, str) and url.startswith("data:") and text is None:
        text = url  # some servers put the bytes there
    if isinstance(text, str) and text:
        if text.startswith("data:"):
            text = text.partition(",")[2]
        try:
            return checked_image(base64.b64decode(text, validate=True), place)
        except (binascii.Error, ValueError):
            raise wrong_image(f"image {place} is not base64") from None
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        return ReceivedImage(url=url)
    raise wrong_image(f"data[{place}] has neither b64_json nor an address")


def _usage(told: JsonValue, images: int) -> Usage:
    """Images are counted by us: they are there. Tokens only where the server counted them."""
    if not isinstance(told, dict):
        return Usage(images=images, estimated=True)
    received, sent = _count(told.get("input_tokens")), _count(told.get("output_tokens"))
    extra: Wire = {key: item for key, item in told.items() if key not in {"input_tokens", "output_tokens"}}
    return Usage(input_tokens=received, output_tokens=sent, images=images, estimated=received is None, extra=extra)


def _count(value: JsonValue) -> int | None:
    return value if type(value) is int and value >= 0 else None


def wrong_image(what: str) -> Exception:
    return unusable(Operation.IMAGE_GENERATION, f"the images cannot be used: {what}")
