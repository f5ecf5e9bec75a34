"""SIGHUP while `spear run` runs a guest: the configuration is read again, and the guest goes on."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
import trio

from tests.spear.cli.command import COMMAND, catches, environment
from tests.system.kit import GUESTS, until_true
from tests.system.test_cli_signals import Started
from tests.system.test_cli_terminal import Terminal

SLEEP = ("run", GUESTS, "--entry", "sleep_an_hour")


def toml(*names: str, extra: str = "") -> str:
    return extra + "".join(f'[[spear.backends]]\nname = "{name}"\nkind = "stub"\nhosting = "local"\n' for name in names)


async def listens(started: Started) -> None:
    await until_true(lambda: catches(started.process.pid, signal.SIGHUP), 30)


async def ends(started: Started) -> None:
    started.process.send_signal(signal.SIGTERM)
    await trio.sleep(0.2)
    started.process.send_signal(signal.SIGTERM)
    code, out, err = await started.ended(8)
    assert (code, out) == (130, "")
    assert "Traceback" not in err


async def test_it_reloads_as_often_as_it_is_told(tmp_path):
    file = tmp_path / "spear.toml"
    file.write_text(toml("a"))
    with Started(tmp_path, SLEEP) as started:
        await listens(started)
        file.write_text(toml("a", "b", extra="[spear.router]\nmax_requests = 5\n"))
        started.process.send_signal(signal.SIGHUP)
        await started.says(
            b"spear: reloaded: generation 2; added b; settings router; "
            b"router.max_requests stays 8192 until the next start, which makes it 5\n"
        )
        file.write_text("[[spear.backends]]\n")
        started.process.send_signal(signal.SIGHUP)
        await started.says(b"config_not_reloaded")
        await started.says(b"spear.toml:1: ")
        file.write_text(toml(extra='[spear.log]\nformat = "json"\nlevel = "info"\n'))
        started.process.send_signal(signal.SIGHUP)
        await started.says(b"spear: warning: ")
        await started.says(b"spear: reloaded: generation 3; removed a, b; settings router, log\n")
        started.process.send_signal(signal.SIGHUP)
        await started.says(b'"event":"config_reloaded"')
        await started.says(b"spear: reloaded: generation 4; nothing changed\n")
        await ends(started)


async def test_without_a_file_there_is_nothing_to_reload(tmp_path):
    with Started(tmp_path, SLEEP) as started:
        await listens(started)
        started.process.send_signal(signal.SIGHUP)
        await started.says(b"spear: nothing to reload: there is no configuration file\n")
        await ends(started)


async def test_one_that_is_ignored_stays_ignored(tmp_path):
    (tmp_path / "spear.toml").write_text(toml("a"))
    command = ["nohup", *COMMAND, *map(str, SLEEP)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), **pipes)  # noqa: ASYNC220
    try:
        await until_true(lambda: catches(process.pid, signal.SIGTERM), 30)
        await trio.sleep(1)
        assert not catches(process.pid, signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        await trio.sleep(0.3)
        assert process.poll() is None
    finally:
        process.kill()
        _, err = process.communicate()
    assert b"reloaded" not in err


async def test_when_its_terminal_goes_it_ends(tmp_path):
    """SIGHUP says that, too; there is nobody left to reload for."""
    (tmp_path / "spear.toml").write_text(toml("a"))
    terminal = Terminal(tmp_path, *SLEEP)
    try:
        await until_true(lambda: catches(terminal.process.pid, signal.SIGHUP), 30)
        os.close(terminal.master)
        with trio.fail_after(18):  # with the drain
            code = await trio.to_thread.run_sync(terminal.process.wait)
        assert code != 0
    finally:
        terminal.process.kill()
        terminal.process.wait()


@pytest.mark.parametrize("command", [("chat", "a question", "--stream")])
async def test_other_commands_leave_it_alone(tmp_path, command):
    (tmp_path / "spear.toml").write_text(toml("a") + "options = { delay_ms = 60_000 }\n")
    with Started(tmp_path, command) as started:
        await started.handles_signals()
        await trio.sleep(1)
        assert not catches(started.process.pid, signal.SIGHUP)
        started.process.send_signal(signal.SIGHUP)
        with trio.fail_after(8):
            await trio.to_thread.run_sync(started.process.wait)
        assert started.process.returncode == -signal.SIGHUP
