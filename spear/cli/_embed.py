"""spear embed: a vector for each text."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spear.ir import Meta, Operation, RequestEnvelope, ResponseEnvelope, dump_json

from ._asking import Asking, ask, asking_options, is_text, tell, write_out
from ._output import file_name, read_stdin

if TYPE_CHECKING:
    from spear import Runtime


@click.command()
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@asking_options
@click.option("--dimensions", "-d", type=click.IntRange(1, 65_536), help="The length of the vectors.")
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    help="Write them to FILE: .npy, or JSON lines.",
    metavar="FILE",
)
def embed(texts: tuple[str, ...], dimensions: int | None, out: Path | None, **options: Any) -> None:
    """Print a vector for each TEXT, a JSON array a line ("-" reads texts from stdin, one a line).

    Exit code: 0 answered; 1 the request failed; 2 usage or configuration; 130 interrupted.
    """
    asking = Asking(**options)
    if texts == ("-",):
        texts = tuple(read_stdin().decode("utf-8", "surrogateescape").splitlines())
        if not texts:
            raise click.BadParameter("standard input has no line")
    for text in texts:
        is_text("TEXT", text)
    if out is not None and not out.parent.is_dir():
        raise click.BadParameter(f"{file_name(out.parent)} is no folder")
    if out is not None and out.is_dir():
        raise click.BadParameter(f"{file_name(out)} is a folder; expected a file")

    def make(runtime: Runtime) -> RequestEnvelope:
        from spear.normalize import request_from_params

        given = {**asking.params, "input": texts, "dimensions": dimensions}
        return request_from_params(Operation.EMBEDDINGS, given, meta=Meta(source="cli"))

    def show(runtime: Runtime, response: ResponseEnvelope) -> None:
        from spear import EmbedReply

        vectors = EmbedReply(response).vectors
        if out is not None:
            write_out(out, _npy(vectors) if out.suffix == ".npy" else _lines(vectors))
            if not asking.as_json:
                length = len(vectors[0]) if vectors else 0
                tell(f"{file_name(out)}: {len(vectors)} x {length}")
        elif not asking.as_json:
            click.echo(_lines(vectors).decode(), nl=False)

    ask(asking, make, show, "waiting for the vectors")


def _lines(vectors: Sequence[Sequence[float]]) -> bytes:
    return b"".join(dump_json(list(vector)) + b"\n" for vector in vectors)


def _npy(vectors: Sequence[Sequence[float]]) -> bytes:
    """Version 1.0 of numpy's format: 32-bit floats, a row for each text. They must not differ in length."""
    length = len(vectors[0]) if vectors else 0
    if any(len(vector) != length for vector in vectors):
        raise click.ClickException("the vectors differ in length; JSON lines take them")
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(vectors)}, {length}), }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    rows = b"".join(struct.pack(f"<{length}f", *vector) for vector in vectors)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode("ascii") + rows
