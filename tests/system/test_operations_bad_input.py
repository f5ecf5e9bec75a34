"""What is far too large, through the public doors of every operation: refused with what would be right, or done, while
everybody else goes on; and everything is well afterwards.
"""

from __future__ import annotations

import io
import struct
import wave
import zlib
from contextlib import asynccontextmanager

import pytest
import trio

import spear
from spear.ir import EmbeddingsRequest, Operation, RequestEnvelope, SpearError
from tests.servers._operations import png
from tests.spear.cli.command import spear as command
from tests.system.kit import config, nothing_left

LIMIT = 60.0
BIG = "lorem ipsum " * (10 * 1024 * 1024 // 12)
MANY = [f"text number {at}" for at in range(100_000)]
EMBEDDED = config(
    *({"name": kind, "kind": kind, "hosting": "local"} for kind in ("stub", "prompt_card", "espeak", "pocketsphinx")),
    {"name": "hashed_ngrams", "kind": "hashed_ngrams", "hosting": "local", "limits": {"max_batch": 100}},
)


def silence(seconds: int, rate: int = 8000, width: int = 1) -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes((b"\x80" if width == 1 else b"\0\0") * (rate * seconds))
    return written.getvalue()


def said_to_be(side: int) -> bytes:
    """A PNG of a few bytes whose header claims `side` x `side`."""
    small = png(8, 8)
    chunk = b"IHDR" + struct.pack(">II", side, side) + small[24:29]
    return small[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + small[33:]


@asynccontextmanager
async def everybody_goes_on(most_s: float = 0.5):
    """A ticker is never late for longer than that. Generous: this is about seconds, and machines that test are busy."""
    latest = 0.0

    async def tick() -> None:
        nonlocal latest
        while True:
            before = trio.current_time()
            await trio.sleep(0.005)
            latest = max(latest, trio.current_time() - before)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await trio.sleep(0.01)
        yield  # noqa: RUF075 - a test that failed has said enough
        nursery.cancel_scope.cancel()
    assert latest < most_s


def picture_in_chat(data):
    return [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "media": data}]}]


REFUSED = {
    "embed, 10 MB": (lambda run: run.embed(BIG), r"input\[0\]: has 10485756 bytes, at most 1048576"),
    "embed, 100 000": (lambda run: run.embed(MANY), "input: has 100000 texts, at most 2048 go into one request"),
    "image, 10 MB": (lambda run: run.image(BIG), "prompt: has 10485756 bytes, at most 131072"),
    "speak, 10 MB": (lambda run: run.speak(BIG), "input: has 10485756 bytes, at most 262144"),
    "transcribe, a prompt of 10 MB": (
        lambda run: run.transcribe(silence(1), prompt=BIG),
        "prompt: has 10485756 bytes, at most 16384",
    ),
    "transcribe, 10 MB of text": (lambda run: run.transcribe(BIG.encode()), "audio: is of no known type"),
    "transcribe, an hour": (lambda run: run.transcribe(silence(3600, 16_000, 2)), "media.max_object_bytes"),
    "image, 20 000 x 20 000": (lambda run: run.image("a", image=said_to_be(20_000)), "more than 4096 x 4096 pixels"),
    "mask, 20 000 x 20 000": (
        lambda run: run.image("a", image=png(8, 8), mask=said_to_be(20_000)),
        "mask: it has more than 4096 x 4096 pixels",
    ),
    "size": (lambda run: run.image("a", size="20000x20000"), "each 16 to 8192"),
}


async def test_python():
    with trio.fail_after(LIMIT):
        async with nothing_left(), spear.open_runtime(EMBEDDED) as runtime:
            await runtime.transcribe(silence(1))  # its process has started
            for what, (call, says) in REFUSED.items():
                async with everybody_goes_on():
                    with pytest.raises(SpearError, match=says) as caught:
                        await call(runtime)
                assert len(str(caught.value)) < 300, what
            async with everybody_goes_on():
                assert (await runtime.chat(messages=[{"role": "user", "content": BIG}])).text.endswith(BIG[-100:])
                # Nobody looks into it: the stub says so, and a server refuses what it does not like.
                assert (await runtime.chat(messages=picture_in_chat(said_to_be(20_000)))).text.endswith("unseen)")
            before = runtime.media.files.account.total.bytes
            async with everybody_goes_on():
                heard = await runtime.transcribe(silence(3600))  # in some 29 MB
                assert (heard.text, heard.result.duration_s) == ("", pytest.approx(3600, abs=1))
            assert runtime.media.files.account.total.bytes - before < 30_000_000
            assert {row["state"] for row in runtime.backends()} == {"running"}
            assert len((await runtime.embed("a")).vectors[0]) == 256


async def test_a_batch_of_the_host_itself_has_no_end():
    """An envelope is not a program's words: 5 000 inputs go through in fifty calls, in order."""
    payload = EmbeddingsRequest(input=tuple(MANY[:5000]), dimensions=16)
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(EMBEDDED) as runtime:
            async with everybody_goes_on():
                response = await runtime.invoke(RequestEnvelope(operation=Operation.EMBEDDINGS, payload=payload))
            vectors = response.unwrap().vectors
            assert len(vectors) == 5000
            for at in (0, 99, 100, 4999):
                assert (await runtime.embed(MANY[at], dimensions=16)).vectors == (vectors[at],)


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (("embed", "-"), "\n".join(MANY), "input: has 100000 texts, at most 2048 go into one request"),
        (("say", "-", "-o", "x.wav"), BIG, "input: has 10485756 bytes, at most 262144 are allowed"),
        (("image", "-", "-o", "x.png"), BIG, "prompt: has 10485756 bytes, at most 131072 are allowed"),
        (("image", "a", "-o", "x.png", "--image", "huge.png"), "", "image: it has more than 4096 x 4096 pixels"),
        (("transcribe", "-"), BIG, "audio: is of no known type; a recording is needed"),
        (("transcribe", "long.wav"), "", "audio: is a file of more than 67108864 bytes, which is the most"),
    ],
)
def test_the_command_line(tmp_path, arguments, stdin, says):
    (tmp_path / "huge.png").write_bytes(said_to_be(20_000))
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(silence(1))
        file.truncate(68_000_000)
    done = command(*arguments, cwd=tmp_path, stdin=stdin.encode())
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith(f"spear: invalid_request: {says}\n")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["huge.png", "long.wav"]
