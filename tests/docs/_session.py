"""Runs a page as its reader would, top to bottom, in one folder:

    a block with a title     is that file, written into the folder
    ```console               its `$ ` lines are run; what follows each is what they print (stderr beside stdout)
    ```python                is run; top-level `await` is allowed; a ```text right after it is what it prints

Printed text is compared after `normal` has taken out what differs from run to run (times, ids, sizes, the compiler). A
line `…` stands for any lines. `python -m tests.docs PAGE…` writes what was really printed into the page.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import trio
from click.testing import CliRunner

import spear
from spear.cli._main import main as spear_command
from tests.docs._pages import ROOT, Block, blocks

_SPEAR: Final = re.compile(
    r"""spear\ (?P<arguments>(?:[\w./-]+|"[\w\ ]*")(?:\ (?:[\w./-]+|"[\w\ ]*"))*)
        (?P<quiet>\ 2>/dev/null)? (?P<then>\ \|\ .+ | ;\ echo\ "exit\ code\ \$\?")?""",
    re.VERBOSE,
)
LIMIT_S: Final = 60.0
STUB: Final = {"spear": {"backends": [{"name": "local", "kind": "stub", "hosting": "local"}]}}

_DIFFERS: Final = (
    (re.compile(r"\b\d+\.\d+(?=s?\b)"), "#.#"),
    (re.compile(r"\b(exec|inst)-[0-9a-f]{16}\b"), r"\1-#"),
    (re.compile(r"\breq_[0-9a-f]+"), "req_#"),
    (re.compile(r"\bincident [0-9a-f]{16}\b"), "incident #"),
    (re.compile(r"\b(ts_ms|seed|created)(\W+)\d+"), r"\1\2#"),
    (re.compile(r"\d+ bytes"), "# bytes"),
    (re.compile(r"^(\w+\.c: ).*(clang|zig).*$", re.M), r"\1compiler"),
    (re.compile(r"[ \t]+$", re.M), ""),
    (re.compile(r"─+"), "─"),
    (re.compile(r"(?<=\S) {2,}"), "  "),
)


def normal(text: str) -> str:
    for pattern, instead in _DIFFERS:
        text = pattern.sub(instead, text)
    return text.strip("\n")


def agrees(shown: str, printed: str) -> bool:
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(line) + "\n" for line in normal(shown).splitlines())
    return re.fullmatch(pattern, normal(printed) + "\n" if printed.strip("\n") else "") is not None


@dataclass(frozen=True, slots=True)
class Printed:
    """Where in the page stands what was printed, and what was."""

    start: int
    end: int
    shown: str
    printed: str
    line: int
    what: str


@dataclass
class Session:
    folder: Path
    instead: dict[str, str] = field(default_factory=dict)
    """Texts of the page that are something else here: a fixed port."""
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__page__", "spear": spear, "trio": trio})
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(self, text: str) -> Iterator[Printed]:
        all_blocks = list(blocks(text))
        for block, following in zip(all_blocks, [*all_blocks[1:], None], strict=True):
            if block.title is not None:
                (self.folder / block.title).write_text(self.here(block.content), encoding="utf-8")
            elif block.language == "console":
                yield from self.console(block)
            elif block.language == "python":
                said = self.python(block)
                if following is not None and following.language == "text" and following.title is None:
                    yield Printed(following.start, following.end, following.content, said, block.line, "python")

    def console(self, block: Block) -> Iterator[Printed]:
        parts = re.split(r"^\$ (.*)\n", block.content, flags=re.M)
        assert parts[0] == "", f"line {block.line}: a console block begins with a command"
        place = block.start
        for command, shown in zip(parts[1::2], parts[2::2], strict=True):
            place += len(command) + 3
            printed = self.there(self.command(self.here(command)))
            yield Printed(place, place + len(shown), shown, printed, block.line, command)
            place += len(shown)

    def command(self, command: str) -> str:
        """What it prints. Plain calls of `spear` and of programs in Python stay in this process, which saves most of
        their time; everything else is bash's."""
        match = _SPEAR.fullmatch(command)
        if match is not None:
            return self.spear(shlex.split(match["arguments"]), match["quiet"] is not None, match["then"] or "")
        match = re.fullmatch(r"python (\w+\.py)", command)
        if match is not None:
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.chdir(self.folder):
                runpy.run_path(match[1], run_name="__main__")
            return out.getvalue()
        return self.bash(command)

    def spear(self, arguments: list[str], quiet: bool, then: str) -> str:
        with contextlib.chdir(self.folder):
            result = CliRunner().invoke(spear_command, arguments, env={"SPEAR_CONFIG": None}, prog_name="spear")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if then.startswith("; echo"):
            return result.output + f"exit code {result.exit_code}\n"
        if then:
            told = "" if quiet else result.stderr
            return told + self.bash(then.removeprefix(" | "), stdin=result.stdout)
        return result.stdout if quiet else result.output

    def bash(self, command: str, *, stdin: str = "") -> str:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("SPEAR_", "OPENAI_"))}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "80",
            "XDG_CACHE_HOME": str(self.folder / ".cache"),
        }
        background = command.endswith(" &")
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command.removesuffix(' &')}" if background else command],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if background:
            self.running.append(process)
            assert process.stdout is not None
            return process.stdout.readline()
        return process.communicate(stdin, timeout=LIMIT_S)[0]

    def python(self, block: Block) -> str:
        code = self.here(block.content)
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.chdir(self.folder):
            compiled = compile(code, f"line {block.line}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            lent = "runtime" not in self.names and _is_free("runtime", code)
            if lent or compiled.co_flags & inspect.CO_COROUTINE:
                trio.run(self.inside, compiled, lent)
            else:
                exec(compiled, self.names)
        return self.there(out.getvalue())

    async def inside(self, compiled: Any, lent: bool) -> None:
        """Blocks with `await` stand in an async function; those that use a `runtime` get one."""
        with trio.fail_after(LIMIT_S):
            async with AsyncExitStack() as stack:
                if lent:
                    self.names["runtime"] = await stack.enter_async_context(spear.open_runtime(STUB))
                    stack.callback(self.names.pop, "runtime")
                result = eval(compiled, self.names)
                if result is not None:
                    await result

    def here(self, text: str) -> str:
        for written, real in self.instead.items():
            text = text.replace(written, real)
        return text

    def there(self, text: str) -> str:
        for written, real in self.instead.items():
            text = text.replace(real, written)
        return text.replace(str(self.folder), ".")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.communicate(timeout=10)


def rewritten(text: str, session: Session) -> str:
    """The page with what was really printed in place of what it shows."""
    for each in reversed(list(session.run(text))):
        if not agrees(each.shown, each.printed):
            printed = each.printed.strip("\n")
            text = text[: each.start] + (printed + "\n" if printed else "") + text[each.end :]
    return text


def _is_free(name: str, code: str) -> bool:
    """Whether the code uses `name` without binding it."""
    uses = [node.ctx for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name) and node.id == name]
    return bool(uses) and not any(isinstance(use, ast.Store) for use in uses)
