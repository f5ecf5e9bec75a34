"""What a backend stored for an answer that nobody gets: a mirror's, or that of an attempt which came too late."""

from __future__ import annotations

import trio

from spear.backends import Answer
from spear.ir import (
    ImageRequest,
    ImageResult,
    MediaRef,
    RequestPayload,
    SpeechToTextRequest,
    StoredMedia,
    TextToSpeechResult,
)
from spear.media import MediaAccess


async def forget(media: MediaAccess, request: RequestPayload, answer: Answer) -> None:
    """Delete the objects of `answer`. Not to be cancelled; without objects it is no checkpoint."""
    with trio.CancelScope(shield=True):
        for each in leftovers(request, answer):
            await media.delete(each)


def leftovers(request: RequestPayload, answer: Answer) -> list[StoredMedia]:
    """The objects of the answer, but for what the request itself named."""
    refs: tuple[MediaRef | None, ...] = ()
    match answer.payload:
        case ImageResult(images=images):
            refs = images
        case TextToSpeechResult(audio=audio):
            refs = (audio,)
    given = _given(request)
    return [ref for ref in refs if isinstance(ref, StoredMedia) and ref.uri not in given]


def _given(request: RequestPayload) -> set[str]:
    refs: tuple[MediaRef | None, ...] = ()
    match request:
        case ImageRequest(image=image, mask=mask):
            refs = (image, mask)
        case SpeechToTextRequest(audio=audio):
            refs = (audio,)
    return {ref.uri for ref in refs if isinstance(ref, StoredMedia)}
