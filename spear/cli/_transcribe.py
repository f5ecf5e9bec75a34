"""spear transcribe: the text of a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spear.ir import Meta, RequestEnvelope, ResponseEnvelope

from ._asking import Asking, ask, asking_options, is_text
from ._output import print_json, read_stdin, shown

if TYPE_CHECKING:
    from spear import Runtime


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@asking_options
@click.option("--language", "-l", help='The language that is spoken, as in "en" or "de-CH".')
@click.option("--timestamps", type=click.Choice(["segment", "word"]), help="Say when each was spoken.")
@click.option("--speakers", is_flag=True, help="Say who spoke.")
@click.option("--prompt", help="Words that may occur, or what was said before.")
@click.option("--translate", is_flag=True, help="Write it in English.")
@click.option(
    "--format", type=click.Choice(["text", "json", "srt", "vtt"]), default="text", show_default=True,
    help="What to print; srt and vtt are subtitles.",
)  # fmt: skip
def transcribe(
    file: Path,
    language: str | None,
    timestamps: str | None,
    speakers: bool,
    prompt: str | None,
    translate: bool,
    format: str,  # noqa: A002 - the option's name
    **options: Any,
) -> None:
    """Print what is said in FILE ("-" reads it from stdin).

    Exit code: 0 done; 1 the request failed; 2 usage or configuration; 130 interrupted.
    """
    asking = Asking(**options)
    if format in {"srt", "vtt"} and timestamps is None:
        timestamps = "segment"
    given = asking.params | {
        "language": None if language is None else is_text("--language", language),
        "timestamps": timestamps,
        "diarization": True if speakers else None,
        "prompt": None if prompt is None else is_text("--prompt", prompt),
        "translate": True if translate else None,
    }
    audio = read_stdin() if str(file) == "-" else file
    model = str(given.pop("model"))

    async def make(runtime: Runtime) -> RequestEnvelope:
        from spear._operations import transcribe_request

        request = await transcribe_request(audio, model, given, runtime.media)
        return request.model_copy(update={"meta": Meta(source="cli")})

    def show(runtime: Runtime, response: ResponseEnvelope) -> None:
        from spear import TranscribeReply
        from spear.normalize import as_srt, as_vtt

        if asking.as_json:
            return
        result = TranscribeReply(response).result
        match format:
            case "json":
                print_json(result.model_dump(mode="json", include={"text", "language", "duration_s", "segments"}))
            case "srt":
                click.echo(shown(as_srt(result)), nl=False)
            case "vtt":
                click.echo(shown(as_vtt(result)), nl=False)
            case _ if timestamps is not None or speakers:
                for each in result.segments:
                    who = "" if each.speaker is None else f" {each.speaker}:"
                    click.echo(shown(f"{each.start_s:8.2f} {each.end_s:8.2f} {who} {each.text}".rstrip()))
            case _:
                click.echo(shown(result.text))

    ask(asking, make, show, "listening")
