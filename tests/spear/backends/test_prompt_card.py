from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest

pytest.importorskip("PIL")

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spear.backends.prompt_card._card import BadImage, Given, draw, read_image
from spear.ir import CallerError, EmbeddingsRequest, ImageRequest, ImageResult, RoutingError, StoredMedia

from .local_kit import CALL, Shelf, inline, local, request, wrong_options


async def cards(prompt: str, **fields: Any) -> list[Image.Image]:
    shelf = Shelf()
    async with local("prompt_card", shelf) as adapter:
        answer = await adapter.invoke(request(ImageRequest(prompt=prompt, **fields)), CALL)
    assert isinstance(answer.payload, ImageResult)
    assert answer.usage.images == len(answer.payload.images)
    found = []
    for ref in answer.payload.images:
        assert isinstance(ref, StoredMedia)
        assert ref.mime == "image/png"
        found.append(Image.open(io.BytesIO(shelf.kept[ref.uri].data), formats=["PNG"]))
    return found


def png(size: tuple[int, int], colour: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A header that promises so many pixels, and hardly any data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


async def test_a_card() -> None:
    (card,) = await cards("a red house under a blue sky")
    assert card.size == (512, 512)
    (other,) = await cards("something else")
    assert card.tobytes() != other.tobytes()
    assert (await cards("a red house under a blue sky"))[0].tobytes() == card.tobytes(), "the same again"


async def test_size_count_and_seed() -> None:
    assert [card.size for card in await cards("x", size="320x64", n=3)] == [(320, 64)] * 3
    assert (await cards("x", size="auto"))[0].size == (512, 512)
    one, two = [(await cards("x", seed=seed, size="64x64"))[0] for seed in (1, 2)]
    assert one.getpixel((0, 0)) != two.getpixel((0, 0))


@pytest.mark.parametrize(
    "fields",
    [{"size": "20000x20000"}, {"size": "8x8"}, {"size": "big"}, {"size": "1x1x1"}, {"n": 11}],
    ids=str,
)
async def test_what_is_too_much(fields: dict[str, Any]) -> None:
    with pytest.raises(CallerError, match=next(iter(fields))):
        await cards("x", **fields)


async def test_a_prompt_of_any_length() -> None:
    assert len(await cards("word " * 6000, size="64x64")) == 1
    with pytest.raises(CallerError, match="prompt: has 40000 characters"):
        await cards("x" * 40_000)


async def test_an_edit_shows_the_image_that_was_given() -> None:
    red = inline(png((50, 50), (255, 0, 0)), "image/png")
    (plain,), (edited,) = await cards("x", size="64x64"), await cards("x", size="64x64", image=red)
    corner = edited.convert("RGB").getpixel((0, 0))
    assert isinstance(corner, tuple)
    assert corner[0] > 150
    assert corner != plain.convert("RGB").getpixel((0, 0))


async def test_a_mask_keeps_what_it_covers() -> None:
    red = inline(png((64, 64), (255, 0, 0)), "image/png")
    covered = inline(png((64, 64), (0, 0, 0, 255)), "image/png")
    clear = inline(png((64, 64), (0, 0, 0, 0)), "image/png")
    (kept,) = await cards("words", size="64x64", image=red, mask=covered)
    assert kept.convert("RGB").getcolors() == [(64 * 64, (255, 0, 0))]
    (changed,) = await cards("words", size="64x64", image=red, mask=clear)
    assert changed.tobytes() == (await cards("words", size="64x64", image=red))[0].tobytes()
    with pytest.raises(CallerError, match="mask: is there without an image"):
        await cards("words", mask=clear)


@pytest.mark.parametrize(
    ("data", "mime", "says"),
    [
        (huge_png(20_000, 20_000), "image/png", "more than 4096 x 4096|20000 x 20000"),
        (huge_png(10_000, 10_000), "image/png", "more than 4096 x 4096|10000 x 10000"),
        (huge_png(5000, 10), "image/png", "5000 x 10 pixels"),
        (png((40, 40), (1, 2, 3))[:60], "image/png", "damaged or truncated"),
        (png((40, 40), (1, 2, 3)), "image/jpeg", "says image/jpeg and is image/png"),
        (b"", "image/png", "no image of a known format"),
        (b"<svg/>", "image/svg+xml", "no image of a known format"),
        (b"\xff\xd8" + b"\xff" * 30_000_000, "image/jpeg", "a JPEG without its size"),  # ten seconds for Pillow
    ],
    ids=["20000x20000", "10000x10000", "5000x10", "truncated", "lying", "empty", "svg", "filling"],
)
async def test_images_that_cannot_be_used(data: bytes, mime: str, says: str) -> None:
    with pytest.raises(CallerError, match=rf"image: it .*({says})"):
        await cards("x", image=inline(data, mime))


async def test_another_operation_and_options() -> None:
    async with local("prompt_card") as adapter:
        with pytest.raises(RoutingError, match="image_generation only"):
            await adapter.invoke(request(EmbeddingsRequest(input=("x",))), CALL)
    assert wrong_options("prompt_card", colour="red") == "options.colour: unknown; prompt_card has none"


async def test_as_a_stream() -> None:
    async with (
        local("prompt_card") as adapter,
        adapter.stream(request(ImageRequest(prompt="x", size="32x32")), CALL) as items,
    ):
        assert [type(item).__name__ async for item in items] == ["Started", "UsageEvent", "Finished"]


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=80), st.integers(16, 80), st.integers(16, 80))
def test_any_prompt(prompt: str, width: int, height: int) -> None:
    card = Image.open(io.BytesIO(draw(prompt, (width, height), "tint", None, None)), formats=["PNG"])
    assert card.size == (width, height)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_bytes(data: st.DataObject) -> None:
    whole = bytearray(png((9, 9), (1, 2, 3)))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        image = read_image(Given(bytes(whole[:cut]), "image/png"), 100)
    except BadImage:
        return
    assert max(image.size) <= 100
