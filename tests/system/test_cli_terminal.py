"""What a person at a terminal sees: a pseudo-terminal is the command's stdin, stdout and stderr."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time

import pytest
import trio

from tests.spear.cli.command import COMMAND, environment, openai_backend, toml
from tests.system.kit import GUESTS, HELLO


class Terminal:
    """`setsid --ctty` makes the pseudo-terminal the command's own, so that a typed Ctrl-C reaches it."""

    def __init__(self, here, *command):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *COMMAND, *map(str, command)],
            cwd=here,
            env=environment(TERM="xterm"),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.seen = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    async def shows(self, text: str, limit: float = 15) -> None:
        with trio.fail_after(limit):
            while text not in self.seen:
                assert await self._more(), f"ended without {text!r}: {self.seen!r}"

    async def ended(self, limit: float = 20) -> int:
        with trio.fail_after(limit):
            while await self._more():
                pass
            code = await trio.to_thread.run_sync(self.process.wait)
        assert "Traceback" not in self.seen, self.seen
        return code

    async def _more(self) -> bool:
        await trio.lowlevel.wait_readable(self.master)
        try:
            data = os.read(self.master, 65_536)
        except OSError:  # how Linux says that the last writer has gone
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def here(tmp_path, fault_server):
    (tmp_path / "spear.toml").write_text(toml(openai_backend(fault_server.base_url)))
    return tmp_path


def left_on_screen(seen: str) -> str:
    """What stays of lines that were overwritten: that after the last return or erasure."""
    lines = seen.replace("\r\n", "\n").split("\n")
    return "\n".join(re.split(r"\r|\x1b\[K", line)[-1] for line in lines)


async def test_a_slow_answer_shows_progress_after_a_second(here, fault_server):
    fault_server.script(delay=2)
    with Terminal(here, "chat", "good day") as terminal:
        assert await terminal.ended() == 0
        assert "waiting for the answer · 1 s" in terminal.seen
        assert "· 0 s" not in terminal.seen
        assert left_on_screen(terminal.seen) == "echo: good day\n"


async def test_a_quick_answer_shows_none(here):
    with Terminal(here, "chat", "good day", "--stream") as terminal:
        assert await terminal.ended() == 0
        assert "waiting" not in terminal.seen
        assert terminal.seen == "echo: good day\r\n"


async def test_a_slow_guest_shows_progress_until_it_speaks(here):
    with Terminal(here, "run", GUESTS, "--entry", "sleep_an_hour", "--timeout", "1.6") as terminal:
        assert await terminal.ended() == 124
        assert "[info] here" in terminal.seen


@pytest.mark.parametrize(
    ("command", "says", "code"),
    [
        (("chat", "x"), "spear: backend_error: upstream status: 500", 1),
        (("chat", "x", "--stream"), "spear: backend_error: upstream status: 500", 1),
        (("run", "notes.txt"), "spear: notes.txt is not WebAssembly", 126),
        (("run", HELLO, "--entry", "nix"), "exports no function 'nix'", 125),
        (("chat", "x", "-c", "missing.toml"), "missing.toml: cannot be read", 2),
    ],
    ids=["chat", "stream", "no module", "no entry", "no config"],
)
async def test_errors_are_one_line_on_a_terminal(here, fault_server, command, says, code):
    (here / "notes.txt").write_text("hello")
    fault_server.script(times=None, status=500)
    with Terminal(here, *command) as terminal:
        assert await terminal.ended() == code
        assert says in terminal.seen
        assert len(left_on_screen(terminal.seen).strip().splitlines()) == 1


async def test_a_stream_that_breaks_ends_the_line_and_says_why(here, fault_server):
    fault_server.script(times=None, cut="fin", cut_after=4)
    with Terminal(here, "chat", "one two three four", "--stream") as terminal:
        assert await terminal.ended() == 1
        assert "echo: one two" in terminal.seen
        assert "\r\nspear: stream_truncated: " in terminal.seen


async def test_ctrl_c_at_the_terminal(here, fault_server):
    fault_server.script(times=None, never=True)
    with Terminal(here, "chat", "good day") as terminal:
        await terminal.shows("waiting for the answer · 1 s")
        terminal.type("\x03")
        await terminal.shows("interrupted; 10 s to finish, again to stop at once")
        began = time.monotonic()
        terminal.type("\x03")
        assert await terminal.ended() == 130
        assert time.monotonic() - began < 5
        await fault_server.until(open=0, aborted=1)


async def test_tables_fit_the_terminal(here):
    with Terminal(here, "backends") as terminal:
        assert await terminal.ended() == 0
        lines = terminal.seen.replace("\r", "").splitlines()
        assert lines[0].startswith("name")
        assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize("how", [(), ("--stream",)])
async def test_an_answer_is_shown_and_not_obeyed(tmp_path, how):
    with Terminal(tmp_path, "chat", "red \x1b[31m alert\x07, 1\u00a0000 \u202e", *how) as terminal:
        assert await terminal.ended() == 0
    assert "red \\x1b[31m alert\\x07, 1\u00a0000 \\u202e" in terminal.seen
    assert "\x07" not in terminal.seen
