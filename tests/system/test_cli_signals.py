"""Ctrl-C and SIGTERM at any moment: exit code 130, no traceback, nobody left, nothing open at the server.

A moment counts from when the process has its handlers: until then, Python itself is starting.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest
import trio

from tests.spear.cli.command import COMMAND, catches, environment, group_is_empty, openai_backend, toml
from tests.system.kit import GUESTS, until_true

DRAIN = 10.0
COMMANDS = {
    "spin": ("run", GUESTS, "--entry", "spin", "--timeout", "0"),
    "sleep": ("run", GUESTS, "--entry", "sleep_an_hour", "--json"),
    "wasi": ("run", GUESTS, "--entry", "sleep_wasi"),
    "ask": ("run", GUESTS, "--entry", "chat_here"),
    "stream": ("chat", "a long question", "--stream"),
    "chat": ("chat", "a long question", "--json"),
}


@pytest.fixture
def here(tmp_path, fault_server):
    fault_server.script(times=None, never=True, stream=False)
    fault_server.script(times=None, tokens_per_second=2, text="word " * 1000, stream=True)
    (tmp_path / "spear.toml").write_text(toml(openai_backend(fault_server.base_url)))
    return tmp_path


class Started:
    """The command, leading a process group of its own; gone at the end of the block, whatever happens."""

    def __init__(self, here, command, **pipes):
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, command)],
            cwd=here,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **{"stdin": subprocess.DEVNULL, **pipes},
        )
        self.err = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    async def handles_signals(self):
        await until_true(lambda: catches(self.process.pid, signal.SIGTERM), 30)

    async def says(self, text):
        """Reads stderr until this is there."""
        with trio.fail_after(30):
            while text not in self.err:
                await trio.lowlevel.wait_readable(self.process.stderr)
                piece = os.read(self.process.stderr.fileno(), 65_536)
                assert piece, self.err
                self.err += piece

    async def ended(self, within):
        """(exit code, stdout, stderr)"""
        with trio.move_on_after(within):
            while self.process.poll() is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert self.process.poll() is not None, f"{self.process.args} still runs {within} s after the signals"
        out, err = self.process.communicate()
        assert group_is_empty(self.process.pid)
        return self.process.returncode, out.decode(), (self.err + err).decode()


def check(code, out, err):
    assert code == 130, err
    for word in ("Traceback", "Error", "Exception", "Aborted"):
        assert word not in err
        assert word not in out


async def test_two_signals_at_any_moment(here, fault_server):
    chance = random.Random(20)
    moments = [(name, chance.uniform(0, 1.5), chance.choice([2, 15]), chance.choice([2, 15])) for name in COMMANDS] * 2
    at_once = trio.CapacityLimiter(4)

    async def one(name, moment, first, second):
        async with at_once:
            with Started(here, COMMANDS[name]) as started:
                await started.handles_signals()
                await trio.sleep(moment)
                started.process.send_signal(first)
                await trio.sleep(0.2)
                if started.process.poll() is None:
                    started.process.send_signal(second)
                check(*await started.ended(8))

    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            for each in moments:
                nursery.start_soon(one, *each)
    await fault_server.until(open=0, connections_open=0)


async def test_one_signal_drains_and_then_ends_it(here, fault_server):
    """The guest that spins, too: what waits for the end of the drain is not kept from running."""

    async def one(name):
        with Started(here, COMMANDS[name]) as started:
            await under_way(started, name)
            began = time.monotonic()
            started.process.send_signal(signal.SIGTERM)
            await started.says(b"spear: interrupted; 10 s to finish, again to stop at once\n")
            check(*await started.ended(DRAIN + 8))
            assert DRAIN - 1 < time.monotonic() - began < DRAIN + 5

    async def under_way(started, name):
        if name == "stream":
            await fault_server.until(open=2, limit=30)  # with that of "ask"
        else:
            await started.says(b"[info] here")

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for name in ("spin", "wasi", "ask", "stream"):
                nursery.start_soon(one, name)
    await fault_server.until(open=0, connections_open=0)


async def test_what_finishes_in_the_drain_is_printed(here, fault_server):
    fault_server.script(times=None, stream=False, delay=1.5, text="the late answer")
    with Started(here, ("chat", "a question")) as started:
        await fault_server.until(open=1, limit=20)
        started.process.send_signal(signal.SIGINT)
        code, out, err = await started.ended(8)
    check(code, out, err)
    assert out == "the late answer\n"


async def test_a_request_that_fails_in_the_drain(here, fault_server):
    fault_server.script(times=None, stream=False, delay=1, status=500)
    with Started(here, ("chat", "a question")) as started:
        await fault_server.until(open=1, limit=20)
        started.process.send_signal(signal.SIGINT)
        code, out, err = await started.ended(8)
    assert (code, out) == (130, "")
    assert "spear: backend_error: upstream status: 500" in err
    assert "Traceback" not in err


async def test_ctrl_c_while_it_reads_stdin(here):
    with Started(here, ("chat", "-"), stdin=subprocess.PIPE) as started:
        await started.handles_signals()
        await trio.sleep(0.5)
        started.process.send_signal(signal.SIGINT)
        assert await started.ended(5) == (130, "", "")
