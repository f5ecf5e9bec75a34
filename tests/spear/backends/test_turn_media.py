"""What a turn stored: kept with the answer that names it, deleted where nobody gets that."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import spear
from spear.backends import Answer, Finished
from spear.ir import (
    Capabilities,
    Feature,
    Hosting,
    ImageResult,
    Operation,
    SpearError,
    StoredMedia,
    Transport,
    Usage,
)
from tests.servers._operations import png


class Maker:
    """A kind that stores two images, answers with the first, and does `after` in between."""

    name = "maker"
    capabilities = Capabilities(
        ops=(Operation.IMAGE_GENERATION,),
        features=(Feature.STREAM,),
        transports=(Transport.IN_PROCESS,),
        hosting=Hosting.LOCAL,
    )

    def __init__(self, after: str) -> None:
        self.after = after
        self.stored = trio.Event()

    def check(self, instance: Any) -> None:
        pass

    @asynccontextmanager
    async def open(self, instance: Any, host: Any) -> Any:
        self.media = host.media
        yield self

    async def invoke(self, request: Any, call: Any) -> Answer:
        kept = await self.media.save(png(4, 4), "image/png", task_id=request.task_id)
        await self.media.save(png(8, 8), "image/png", task_id=request.task_id)
        self.stored.set()
        match self.after:
            case "waits":
                await trio.sleep_forever()
            case "goes on":
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.05)
            case "fails":
                raise RuntimeError("a bug")
        return Answer(ImageResult(images=(kept,)), Usage(), model="m")

    @asynccontextmanager
    async def stream(self, request: Any, call: Any) -> Any:
        raise NotImplementedError
        yield Finished


@asynccontextmanager
async def runtime_of(maker: Maker) -> Any:
    source = {"spear": {"backends": [{"name": "it", "kind": "maker", "hosting": "local"}]}}
    async with spear.open_runtime(source, kinds={"maker": maker}) as runtime:
        yield runtime


def objects(runtime: spear.Runtime) -> int:
    return runtime.media.files.account.total.objects


async def test_what_the_answer_names_is_kept() -> None:
    async with runtime_of(Maker("answers")) as runtime:
        reply = await runtime.image("a boat")
        assert objects(runtime) == 1
        (image,) = reply.images
        assert isinstance(image, StoredMedia)
        assert await reply.load() == [png(4, 4)]


@pytest.mark.parametrize("after", ["waits", "goes on"])
async def test_the_caller_leaves_when_all_is_stored(after: str) -> None:
    maker = Maker(after)
    with trio.fail_after(10):
        async with runtime_of(maker) as runtime:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(runtime.image, "a boat")
                await maker.stored.wait()
                assert objects(runtime) == 2
                nursery.cancel_scope.cancel()
            while objects(runtime):  # noqa: ASYNC110 - in a thread
                await trio.sleep(0.01)


async def test_a_bug_after_it_was_stored() -> None:
    async with runtime_of(Maker("fails")) as runtime:
        with pytest.raises(SpearError):
            await runtime.image("a boat")
        assert objects(runtime) == 0
