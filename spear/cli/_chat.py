"""spear chat: one question, one answer."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import JsonValue

from spear.ir import (
    CanonicalError,
    Completed,
    ContentDelta,
    ErrorEvent,
    Meta,
    Operation,
    RequestEnvelope,
    ResponseEnvelope,
    Routing,
    SpearError,
    StreamEvent,
    error_to_exception,
)

from ._output import Seconds, choose_config, config_option, json_option, print_json, progress, read_stdin, shown
from ._signals import run_command


@click.command()
@click.argument("prompt")
@config_option
@click.option("--model", "-m", default="", help="The model or model class to ask (default: the host's choice).")
@click.option("--backend", "-b", help="Ask exactly this backend.")
@click.option("--system", "-s", help="A system message before the prompt.")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A picture beside the prompt; may be repeated.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), help="At most so many tokens in the answer.")
@click.option("--stream", is_flag=True, help="Print the answer as it comes; with --json, one event a line.")
@click.option("--timeout", type=Seconds(min=0.001), metavar="S", help="Seconds until the request is given up.")
@click.option("--verbose", "-v", is_flag=True, help="Say who answered, how long it took and what it used (on stderr).")
@json_option
def chat(
    prompt: str,
    config_path: Path | None,
    model: str,
    backend: str | None,
    system: str | None,
    images: tuple[Path, ...],
    max_tokens: int | None,
    stream: bool,
    timeout: float | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Ask PROMPT ("-" reads it from stdin) and print the answer.

    Exit code: 0 answered; 1 the request failed; 2 usage or configuration; 130 interrupted.
    """
    text = _read_stdin() if prompt == "-" else prompt
    for name, given in (("PROMPT", text), ("--model", model), ("--backend", backend), ("--system", system)):
        if given is not None and not _is_text(given):
            raise click.BadParameter(f"{name} is not valid UTF-8")
    messages: list[JsonValue] = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    body: dict[str, JsonValue] = {"model": model, "messages": messages, "stream": stream}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens

    async def main() -> int:
        from spear import open_runtime
        from spear._operations import with_pictures
        from spear.normalize import request_from_openai

        request = request_from_openai(
            body,
            timeout_ms=None if timeout is None else max(1, round(timeout * 1000)),
            routing=Routing(backend=backend),
            meta=Meta(source="cli"),
        )
        async with open_runtime(choose_config(config_path, quiet=as_json)) as runtime:
            if images:
                request = await with_pictures(request, images, runtime.media)
            if stream:
                return await _stream(runtime, request, as_json, verbose)
            async with progress("waiting for the answer"):
                response = await runtime.invoke(request)
        if as_json:
            print_json(response.model_dump(mode="json"))
            return 1 if response.result.error is not None else 0
        if verbose and response.result.error is not None:
            click.echo(tried(response.result.error), err=True)
        result = response.unwrap()
        click.echo(shown(getattr(result, "text", "")))
        if verbose:
            click.echo(footer(response), err=True)
        return 0

    run_command(main)


def _read_stdin() -> str:
    return read_stdin().decode("utf-8", "surrogateescape")


def _is_text(given: str) -> bool:
    """Bytes of the command line that are no UTF-8 arrive as lone surrogates, which no backend can be sent."""
    return not any("\ud800" <= character <= "\udfff" for character in given)


async def _stream(runtime: object, request: RequestEnvelope, as_json: bool, verbose: bool) -> int:
    from spear import Runtime

    assert isinstance(runtime, Runtime)
    code = 0
    async with progress("waiting for the first word") as quiet:
        try:
            async with runtime.stream(request) as events:
                async for event in events:
                    quiet()
                    code = _show(event, as_json, verbose)
        except SpearError as error:
            if not as_json:
                if verbose:
                    click.echo(tried(error.error), err=True)
                raise
            print_json(ErrorEvent(error=error.error).model_dump(mode="json"))
            code = 1
    return code


def _show(event: StreamEvent, as_json: bool, verbose: bool) -> int:
    if as_json:
        print_json(event.model_dump(mode="json"))
    elif isinstance(event, ContentDelta) and event.choice == 0:
        click.echo(shown(event.delta), nl=False)
    elif isinstance(event, Completed):
        click.echo()
        if verbose:
            click.echo(footer(event.response), err=True)
    elif isinstance(event, ErrorEvent):
        click.echo()
        raise error_to_exception(event.error)
    return 1 if isinstance(event, ErrorEvent) else 0


def tried(error: CanonicalError) -> str:
    """Who was asked in vain, and who was not asked and why: one line each."""
    lines = [
        f"— {each.backend}: {each.outcome}{f' ({each.error_code.value})' if each.error_code else ''}, "
        f"{each.elapsed_ms:.1f} ms"
        for each in error.attempts
    ]
    asked = {each.backend for each in error.attempts}
    lines += [f"— {name}: {why}" for name, why in error.rejected_reasons.items() if name not in asked]
    if error.retry_after_ms is not None:
        lines.append(f"— worth another try in {error.retry_after_ms / 1000:g} s")
    return "\n".join(lines) or "— nobody was asked"


def footer(response: ResponseEnvelope) -> str:
    """Who answered, how long it took, what it used: one line."""
    parts = []
    if response.backend is not None:
        backend = response.backend
        parts.append(f"{backend.name} ({backend.kind}{', ' + backend.model if backend.model else ''})")
        parts.append(f"{backend.latency_ms:.1f} ms")
        failed = [f"{a.backend}: {a.error_code}" for a in backend.attempts if a.outcome != "ok"]
        if failed:
            parts.append("after " + ", ".join(failed))
    usage = response.usage
    if usage.input_tokens is not None:
        about = "≈ " if usage.estimated else ""
        # Embeddings have no output: their tokens are those of the input alone.
        output = "" if response.operation is Operation.EMBEDDINGS else f" + {usage.output_tokens or 0}"
        counted = f"{usage.input_tokens}{output}"
        parts.append(f"{about}{counted} {'token' if counted == '1' else 'tokens'}")
    images = "image" if usage.images == 1 else "images"
    others = ((usage.characters, "characters"), (usage.images, images), (usage.audio_seconds, "s of sound"))
    parts += [f"{round(count, 1):g} {what}" for count, what in others if count is not None]
    if usage.cost is not None:
        parts.append(f"cost {usage.cost:.6f}")
    return "— " + " · ".join(parts)
