"""spear say: a text, spoken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from spear.ir import Meta, Operation, RequestEnvelope, ResponseEnvelope

from ._asking import Asking, ask, asking_options, checked_out, is_text, tell, text_argument, write_out
from ._output import file_name

if TYPE_CHECKING:
    from spear import Runtime

_FORMATS: Final = ("wav", "mp3", "pcm", "opus", "flac")
_BY_SUFFIX: Final = {".raw": "pcm", ".ogg": "opus", **{f".{name}": name for name in _FORMATS}}


@click.command()
@click.argument("text")
@asking_options
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="FILE", help="The file to write; - = stdout.")
@click.option("--voice", help="The voice; which there are is the backend's.")
@click.option("--format", type=click.Choice(_FORMATS), help="By default that of the file's name.")
@click.option("--speed", type=click.FloatRange(0.25, 4.0), help="1 is the voice's own.")
@click.option("--ssml", is_flag=True, help="TEXT is SSML.")
def say(
    text: str,
    out: Path | None,
    voice: str | None,
    format: str | None,  # noqa: A002 - the option's name
    speed: float | None,
    ssml: bool,
    **options: Any,
) -> None:
    """Say TEXT ("-" reads it from stdin) into a file.

    Exit code: 0 said; 1 the request failed; 2 usage or configuration; 130 interrupted.
    """
    asking = Asking(**options)
    out = checked_out(out, as_json=asking.as_json, example="hello.wav")
    words = text_argument("TEXT", text)
    if format is None and out is not None:
        format = _BY_SUFFIX.get(out.suffix.lower())  # noqa: A001
    given = asking.params | {
        "input": words,
        "voice": None if voice is None else is_text("--voice", voice),
        "format": format,
        "speed": speed,
        "ssml": True if ssml else None,
    }

    def make(runtime: Runtime) -> RequestEnvelope:
        from spear.normalize import request_from_params

        return request_from_params(Operation.TEXT_TO_SPEECH, given, meta=Meta(source="cli"))

    async def show(runtime: Runtime, response: ResponseEnvelope) -> None:
        from spear import SpeakReply

        if out is None:
            return
        reply = SpeakReply(response, runtime.media)
        data = await reply.load()
        write_out(out, data)
        if str(out) != "-" and not asking.as_json:
            seconds = reply.result.duration_s
            told = f"{len(data)} bytes" if seconds is None else f"{len(data)} bytes, {seconds:.1f} s"
            tell(f"{file_name(out)}: {told}, {reply.audio.mime}")

    ask(asking, make, show, "waiting for the voice")
