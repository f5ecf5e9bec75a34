"""The chapter of `spear demo` with other things than text: say a sentence, transcribe it, answer it, draw it."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click
import trio

import spear
from spear import Runtime
from spear.config import default_config
from spear.ir import ResponseEnvelope
from spear.router import build_generation

from ._demo_stage import Stage

SENTENCE: Final = "a blue sky over the city"
VOICE: Final = "en-us+klatt2"
"""The one of espeak-ng's that the recogniser understands best."""
_REMARK: Final = (
    "espeak-ng, pocketsphinx, the stub and a card of Pillow's, all on this machine; real sound and a real picture, but "
    "no good models: it may mishear"
)


async def media(stage: Stage, keep: Path | None) -> None:
    """`keep`: the folder for the files; None = one that is removed again."""
    stage.scene("Say it, hear it, answer it, draw it", _REMARK)
    skipped = build_generation(default_config()).skipped
    for each in skipped:
        stage.say("missing", f"{each.name}: {each.detail}", color="red")
    if skipped:
        stage.say("left out", "the rest of this chapter needs all of them")
        return
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spear-demo-")))
        await trio.Path(folder).mkdir(parents=True, exist_ok=True)
        async with spear.open_runtime(observer=stage.observe) as runtime:
            await _conversation(stage, runtime, folder)
    if keep is None:
        stage.say("files", "removed again; `spear demo --keep FOLDER` leaves them there")


async def _conversation(stage: Stage, runtime: Runtime, folder: Path) -> None:
    spoken = await runtime.speak(SENTENCE, voice=VOICE, speed=0.8)
    await _file(stage, folder / "said.wav", await spoken.load())
    stage.say("said", f"{SENTENCE!r}, {spoken.result.duration_s or 0:.1f} s of sound{_by(spoken.response)}")
    heard = await runtime.transcribe(spoken.audio)
    wanted = SENTENCE.split()
    right = sum(word in heard.text.split() for word in wanted)
    stage.say("heard", f"{heard.text!r}, {right} of {len(wanted)} words{_by(heard.response)}", color="green")
    answer = await runtime.chat(messages=[{"role": "user", "content": heard.text}])
    stage.say("answered", f"{answer.text!r}{_by(answer.response)}", color="green")
    drawn = await runtime.image(heard.text or SENTENCE, size="640x360", seed=7)
    (picture,) = await drawn.load()
    await _file(stage, folder / "drawn.png", picture)
    stage.say("drawn", f"the card of it, 640 x 360{_by(drawn.response)}")
    said = await runtime.speak(answer.text, voice=VOICE, speed=0.9)
    await _file(stage, folder / "answer.wav", await said.load())
    near = (await runtime.embed([SENTENCE, heard.text, "two cups of tea, please"])).vectors
    same, other = (sum(a * b for a, b in zip(near[0], each, strict=True)) for each in near[1:])
    stage.say("nearness", f"of what was said to what was heard: {same:.2f}; to something else: {other:.2f}")


def _by(response: ResponseEnvelope) -> str:
    backend = response.backend
    return click.style(f"   {backend.name}, {backend.latency_ms:.0f} ms", dim=True) if backend is not None else ""


async def _file(stage: Stage, path: Path, data: bytes) -> None:
    await trio.Path(path).write_bytes(data)
    stage.say("wrote", f"{path}, {len(data)} bytes")
