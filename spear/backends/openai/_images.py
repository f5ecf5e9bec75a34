"""Images: a generation, or an edit where the request has a picture. Those of the answer go to the media store."""

from __future__ import annotations

from spear.backends._http import FormFile, json_of, multipart
from spear.backends._kept import keep_all
from spear.backends._protocol import Answer, Call
from spear.dialects.openai_audio import form_fields
from spear.dialects.openai_images import ReceivedImage, checked_image, image_body, images_from_body, wrong_image
from spear.ir import (
    ImageRequest,
    ImageResult,
    MediaRef,
    RequestEnvelope,
    SpearError,
    UrlMedia,
    dump_json,
    invalid_request,
)
from spear.media import MediaBytes

from ._operation import MAX_MEDIA, Operations
from ._told import check_error, model_of

_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}


async def draw(to: Operations, request: RequestEnvelope, image: ImageRequest, call: Call) -> Answer:
    model = to.model(image)
    body = image_body(image, model=model, response_format=_response_format(to.options.image_response_format, model))
    content: bytes | tuple[bytes, ...]
    if image.image is None:
        if image.mask is not None:
            raise invalid_request("mask", "says what of an image may change; give the image, too")
        url, content, kind = to.url("/images/generations", model), dump_json(body), b"application/json"
    else:
        files = [await _file(to, "image", image.image, request)]
        if image.mask is not None:
            files.append(await _file(to, "mask", image.mask, request))
        url = to.url("/images/edits", model)
        kind, content = multipart(form_fields(body), files)
    async with to.client.post(url, content, call, content_type=kind) as received:
        value = await json_of(received, to.client.mask, limit=MAX_MEDIA, exact=False)
    check_error(value, to.client.redact)
    images, extra, usage = images_from_body(value)
    whole = [await _fetched(to, each.url, place, request) if each.url else each for place, each in enumerate(images)]
    refs = await keep_all([(each.data, each.mime) for each in whole], to.media, task_id=request.task_id)
    raw = value if to.client.host.debug_raw else None
    return Answer(ImageResult(images=refs, extra=extra), usage, model_of(value), raw=raw)


def _response_format(option: str, model: str) -> str | None:
    if option == "auto":
        return None if "gpt-image" in model.lower() else "b64_json"
    return None if option == "none" else option


async def _file(to: Operations, field: str, ref: MediaRef, request: RequestEnvelope) -> FormFile:
    loaded: MediaBytes = await to.load(ref, request)
    return FormFile(field, f"{field}.{_SUFFIXES.get(loaded.mime, 'png')}", loaded.mime, loaded.data)


async def _fetched(to: Operations, url: str, place: int, request: RequestEnvelope) -> ReceivedImage:
    """Only from where the host lets pictures be fetched: an answer could name any address."""
    try:
        loaded = await to.media.load(UrlMedia(url=url), task_id=request.task_id, max_bytes=MAX_MEDIA)
    except (SpearError, ValueError) as error:
        code = f" ({error.code})" if isinstance(error, SpearError) else ""
        message = f"image {place} is only an address, which cannot be fetched{code}; ask for b64_json"
        raise wrong_image(message) from None
    return checked_image(loaded.data, place)
