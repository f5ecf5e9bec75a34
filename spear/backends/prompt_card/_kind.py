"""The kind and its adapter. It has no options."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from spear.backends._local import Whole, not_done_here, only_known
from spear.backends._protocol import Adapter, Answer, Call, Host
from spear.config import InstanceConfig
from spear.ir import (
    Capabilities,
    Feature,
    Hosting,
    ImageRequest,
    ImageResult,
    Limits,
    MediaRef,
    Operation,
    RequestEnvelope,
    Transport,
    Usage,
    invalid_request,
    trusted,
)
from spear.media import MediaAccess

if TYPE_CHECKING:
    from ._card import Given

SIDE: Final = (16, 2048)
MAX_IMAGES: Final = 10
MAX_CHARS: Final = 32_000
MAX_GIVEN_SIDE: Final = 4096
MAX_GIVEN_BYTES: Final = 32 * 1024 * 1024
_DEFAULT: Final = "512x512"
_SIZE: Final = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_MODEL: Final = "prompt-card"
_AT_ONCE: Final = 2
"""Threads that draw: each has whole pictures in memory."""

_result = trusted(ImageResult)


class _PromptCard(Whole):
    def __init__(self, instance: InstanceConfig, media: MediaAccess) -> None:
        super().__init__(instance.name)
        self._model = (instance.model or "").strip() or _MODEL
        self._media = media
        self._threads = trio.CapacityLimiter(_AT_ONCE)

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        wanted = request.payload
        if not isinstance(wanted, ImageRequest):
            raise not_done_here(request, "prompt_card does image_generation only")
        size, count = _size(wanted.size), wanted.n or 1
        if count > MAX_IMAGES:
            raise invalid_request("n", f"is {count}; prompt_card draws at most {MAX_IMAGES} images")
        if len(wanted.prompt) > MAX_CHARS:
            raise invalid_request("prompt", f"has {len(wanted.prompt)} characters; prompt_card takes {MAX_CHARS}")
        if wanted.mask is not None and wanted.image is None:
            raise invalid_request("mask", "is there without an image; it says which part of an image is to be changed")
        image = await self._given(wanted.image, request.task_id)
        mask = await self._given(wanted.mask, request.task_id)
        images: list[MediaRef] = []
        for number in range(count):
            tint = f"{wanted.prompt if wanted.seed is None else wanted.seed} {number}"
            work = partial(_draw, wanted.prompt, size, tint, image, mask)
            data = await trio.to_thread.run_sync(work, limiter=self._threads)
            images.append(await self._media.save(data, "image/png", task_id=request.task_id))
        usage = Usage(images=count, characters=len(wanted.prompt))
        return Answer(_result(images=tuple(images)), usage, model=self._model)

    async def _given(self, ref: MediaRef | None, task_id: str | None) -> Given | None:
        if ref is None:
            return None
        from ._card import Given

        loaded = await self._media.load(ref, task_id=task_id, max_bytes=MAX_GIVEN_BYTES)
        return Given(loaded.data, loaded.mime)


def _draw(prompt: str, size: tuple[int, int], tint: str, image: Given | None, mask: Given | None) -> bytes:
    from ._card import BadImage, draw, read_image  # Pillow: late

    read = []
    for name, given in (("image", image), ("mask", mask)):
        try:
            read.append(None if given is None else read_image(given, MAX_GIVEN_SIDE))
        except BadImage as error:
            raise invalid_request(name, str(error)) from None
    return draw(prompt, size, tint, *read)


def _size(text: str | None) -> tuple[int, int]:
    if text in {None, "", "auto"}:
        text = _DEFAULT
    assert text is not None
    found = _SIZE.fullmatch(text)
    sides = tuple(map(int, found.groups())) if found else ()
    if len(sides) != 2 or not all(SIDE[0] <= side <= SIDE[1] for side in sides):
        most = f"{SIDE[0]}x{SIDE[0]} to {SIDE[1]}x{SIDE[1]}"
        raise invalid_request("size", f"is {text[:32]!r}; prompt_card draws {most}, such as {_DEFAULT}")
    return sides[0], sides[1]


class _PromptCardKind:
    name = "prompt_card"
    capabilities = Capabilities(
        ops=(Operation.IMAGE_GENERATION,),
        features=(Feature.IMAGE_INPUT, Feature.MASK, Feature.SEED, Feature.STREAM),
        transports=(Transport.IN_PROCESS,),
        limits=Limits(max_images_per_request=MAX_IMAGES, max_image_size=SIDE[1], max_chars=MAX_CHARS),
        hosting=Hosting.LOCAL,
    )

    def check(self, instance: InstanceConfig) -> None:
        only_known(instance)

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        return _open(instance, host.media)


@asynccontextmanager
async def _open(instance: InstanceConfig, media: MediaAccess) -> AsyncGenerator[Adapter, None]:
    yield _PromptCard(instance, media)


KIND = _PromptCardKind()
