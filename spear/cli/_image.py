"""spear image: a picture from a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spear.ir import Meta, RequestEnvelope, ResponseEnvelope

from ._asking import Asking, ask, asking_options, checked_out, is_text, tell, text_argument, write_out
from ._output import file_name

if TYPE_CHECKING:
    from spear import Runtime

_PICTURE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("prompt")
@asking_options
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="FILE", help="The file to write; - = stdout.")
@click.option("--size", help='WIDTHxHEIGHT in pixels, or "auto".')
@click.option("--n", "-n", type=click.IntRange(1, 10), default=1, help="How many: card-1.png, card-2.png, ….")
@click.option("--image", type=_PICTURE, metavar="FILE", help="A picture to change.")
@click.option("--mask", type=_PICTURE, metavar="FILE", help="What of it is to be changed: where this one is clear.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="The same one gives the same picture, where it can.")
def image(
    prompt: str,
    out: Path | None,
    size: str | None,
    n: int,
    image: Path | None,
    mask: Path | None,
    seed: int | None,
    **options: Any,
) -> None:
    """Draw PROMPT ("-" reads it from stdin) into a file.

    Exit code: 0 drawn; 1 the request failed; 2 usage or configuration; 130 interrupted.
    """
    asking = Asking(**options)
    out = checked_out(out, as_json=asking.as_json, example="card.png")
    if n > 1 and str(out) == "-":
        raise click.UsageError("standard output takes one picture; name a file, or leave out --n")
    text = text_argument("PROMPT", prompt)
    size = None if size is None else is_text("--size", size)

    async def make(runtime: Runtime) -> RequestEnvelope:
        from spear._operations import image_request

        given = asking.params | {"size": size, "seed": seed, "image": image, "mask": mask}
        given["n"] = n if n > 1 else None
        model = str(given.pop("model"))
        request = await image_request(text, model, given, runtime.media)
        return request.model_copy(update={"meta": Meta(source="cli")})

    async def show(runtime: Runtime, response: ResponseEnvelope) -> None:
        from spear import ImageReply
        from spear.normalize import seen_type, suffix_of

        if out is None:
            return
        pictures = await ImageReply(response, runtime.media).load()
        for number, data in enumerate(pictures, 1):
            path = out if len(pictures) == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
            write_out(path, data)
            mime = seen_type(data) or "of no known type"
            told = f"{len(data)} bytes"
            if suffix_of(mime) != path.suffix.lower():
                told += f", {mime}"
            if str(path) != "-" and not asking.as_json:
                tell(f"{file_name(path)}: {told}")

    ask(asking, make, show, "waiting for the picture")
