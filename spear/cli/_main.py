"""The group of all commands, each imported when it runs."""

from __future__ import annotations

import importlib
from typing import Final, cast

import click

from spear._about import DISTRIBUTION, __version__

_COMMANDS: Final = {
    "run": "spear.cli._run:run",
    "chat": "spear.cli._chat:chat",
    "embed": "spear.cli._embed:embed",
    "image": "spear.cli._image:image",
    "say": "spear.cli._say:say",
    "transcribe": "spear.cli._transcribe:transcribe",
    "backends": "spear.cli._inspect:backends",
    "capabilities": "spear.cli._inspect:capabilities",
    "explain": "spear.cli._inspect:explain",
    "replay": "spear.cli._replay:replay",
    "simulate": "spear.cli._simulate:simulate",
    "schema": "spear.cli._inspect:schema",
    "config": "spear.cli._config:config",
    "mcp": "spear.cli._mcp:mcp",
    "mirror": "spear.cli._mirror:mirror",
    "guest": "spear.cli._guest:guest",
    "demo": "spear.cli._demo:demo",
}
_HELP: Final = {
    "run": "Run a WebAssembly guest.",
    "chat": "Ask a model and print the answer.",
    "embed": "Turn texts into vectors.",
    "image": "Draw a picture.",
    "say": "Say a text into a file.",
    "transcribe": "Print what is said in a recording.",
    "backends": "Show the configured backends and why one is not usable.",
    "capabilities": "Show what can be asked for.",
    "explain": "Show how a request would be routed, without sending it.",
    "replay": "Make recorded decisions again, or by another policy or configuration.",
    "simulate": "Try a configuration in virtual time, against modelled backends.",
    "schema": "Print the JSON Schema of requests, responses and events.",
    "config": "Check a configuration, compare two, or write a first one.",
    "mcp": "Show the MCP servers and their tools.",
    "mirror": "Compare the answers of mirrored requests.",
    "guest": "Build guests from C.",
    "demo": "Watch guests, routing, a fallback and a tool call at work.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name].split(":")
        return cast("click.Command", getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _HELP[name]) for name in _COMMANDS])


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "The configuration is --config FILE, else $SPEAR_CONFIG, else ./spear.toml, else the embedded backends. "
        "Exit codes: 0 done; 1 the request failed; 2 usage or configuration; 130 interrupted; "
        "`spear run` also: the guest's own code, 124 timeout, 125 trap or failed start, 126 not a module."
    ),
)
@click.version_option(__version__, "-V", "--version", prog_name=DISTRIBUTION)
def main() -> None:
    """Spear runs AI operations: WebAssembly guests and programs ask, configured backends answer.

    Try `spear demo`, then `spear chat "hello"`, then `spear config init`.
    """
