"""The runtime from threads that know nothing of Trio: main thread, many threads, asyncio, Ctrl-C, ends of all kinds."""

from __future__ import annotations

import asyncio  # noqa: TID251 - what a program that is not on Trio has
import gc
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

import spear.blocking
from spear.ir import CallerError, ConfigError, SpearError
from tests.system.kit import GUESTS, HELLO, backend, chat, config, open_fds, prefer, stub

STUB = config(stub())
SAY = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def _nothing_left():
    """No thread and no descriptor outlives its block. Trio's idle workers are a cache of its own, for ten seconds; the
    pipes belong to the test servers."""

    def ours():
        return {each for each in threading.enumerate() if not each.name.startswith("Trio thread")}

    def descriptors():
        gc.collect()  # compiled modules are files in memory, and live as long as a traceback refers to them
        return {fd for fd, what in open_fds().items() if not what.startswith("pipe:")}

    threads, fds = ours(), descriptors()
    yield
    assert ours() <= threads
    assert descriptors() <= fds


def wait_for(server, **expected):
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        counts = server.counts()
        if all(counts[name] == value for name, value in expected.items()):
            return
        time.sleep(0.01)
    raise AssertionError(f"{expected} not reached: {server.counts()}")


def test_everything_from_the_main_thread(fault_server):
    with spear.blocking.open_runtime(config(backend(fault_server), stub(model_class="s"))) as runtime:
        assert runtime.chat("small", messages=SAY).text == "echo: hi"
        assert runtime.invoke(chat("x", "s")).backend.name == "stub"
        with runtime.stream(chat("one two")) as events:
            kinds = [event.type for event in events]
        assert (kinds[0], kinds[-1]) == ("started", "completed")
        execution = runtime.run_guest(GUESTS, entry="chat_small")
        assert json.loads(execution.stdout)["_spear"]["backend"] == fault_server.name
        assert runtime.snapshot().children[0].path == "runtime/backends"
        assert runtime.explain(chat("x", "s")).chosen == "stub"
        assert [row["name"] for row in runtime.backends()] == [fault_server.name, "stub"]
        assert runtime.capabilities()["operations"] == ["chat_completions"]
        assert "spear-runtime" in [thread.name for thread in threading.enumerate()]
    wait_for(fault_server, open=0, connections_open=0)


def test_many_threads(fault_server):
    fault_server.script(times=None, delay=0.1)
    with spear.blocking.open_runtime(config(backend(fault_server))) as runtime, ThreadPoolExecutor(20) as pool:
        began = time.perf_counter()
        texts = pool.map(
            lambda n: runtime.chat("small", messages=[{"role": "user", "content": f"{n}"}]).text, range(60)
        )
        assert list(texts) == [f"echo: {n}" for n in range(60)]
        assert time.perf_counter() - began < 5  # one after the other would take six
    assert fault_server.counts()["most_open"] > 5


def test_asyncio(fault_server):
    fault_server.script(times=None, delay=0.1)

    async def main(runtime):
        ask = [asyncio.to_thread(runtime.chat, "small", messages=SAY) for _ in range(10)]
        return [reply.text for reply in await asyncio.gather(*ask)]

    with spear.blocking.open_runtime(config(backend(fault_server))) as runtime:
        assert asyncio.run(main(runtime)) == ["echo: hi"] * 10


def test_errors_are_those_of_the_runtime(fault_servers):
    bad, worse = fault_servers(), fault_servers()
    for server in (bad, worse):
        server.script(times=None, status=500)
    with spear.blocking.open_runtime(prefer(bad, worse)) as runtime:
        with pytest.raises(SpearError, match="upstream status: 500"):
            runtime.chat("small", messages=SAY)
        with pytest.raises(CallerError, match="messages"):
            runtime.chat("small", messages=[])
        with pytest.raises(SpearError, match="upstream status: 500"), runtime.stream(chat()):
            raise AssertionError("entered")
        with pytest.raises(FileNotFoundError):
            runtime.run_guest("missing.wasm")
        attempts = runtime.invoke(chat()).result.error.attempts
        assert [attempt.backend for attempt in attempts[:2]] == [bad.name, worse.name]


def test_a_stream_left_early_closes_its_connection(fault_server):
    fault_server.script(times=None, tokens_per_second=5, text="word " * 500)
    with spear.blocking.open_runtime(config(backend(fault_server))) as runtime:
        with runtime.stream(chat()) as events:
            assert next(events).type == "started"
            assert next(events).type == "content_delta"
        wait_for(fault_server, open=0, aborted=1)
        with pytest.raises(ZeroDivisionError), runtime.stream(chat()) as events:  # noqa: PT012
            next(events)
            raise ZeroDivisionError
        wait_for(fault_server, open=0, aborted=2)


def test_a_stream_that_breaks_ends_with_an_error_event(fault_server):
    fault_server.script(times=None, cut="rst", cut_after=3)
    with (
        spear.blocking.open_runtime(config(backend(fault_server))) as runtime,
        runtime.stream(chat("a b c d")) as events,
    ):
        assert [event.type for event in events][-1] == "error"


def test_callbacks_run_in_the_runtimes_thread_and_must_not_call_back():
    seen = []

    def ask(record):
        seen.append(threading.current_thread().name)
        runtime.chat(messages=SAY)

    with spear.blocking.open_runtime(STUB) as runtime:
        with pytest.raises(RuntimeError, match="its own thread"):
            runtime.run_guest(HELLO, on_log=ask)
        assert runtime.run_guest(HELLO).status == "completed"
    assert seen == ["spear-runtime"]


def test_a_bad_configuration_raises_where_it_is_opened(tmp_path):
    (tmp_path / "bad.toml").write_text('[[spear.backends]]\nname = "a"\nkind = "nix"\nhosting = "local"\n')
    for source in (tmp_path / "bad.toml", tmp_path / "missing.toml", {"spear": {"nix": 1}}):
        with pytest.raises(ConfigError), spear.blocking.open_runtime(source):
            raise AssertionError("opened")


def test_an_error_in_the_block_is_raised_and_everything_closed(fault_server):
    source = config(backend(fault_server))
    with pytest.raises(ZeroDivisionError), spear.blocking.open_runtime(source) as runtime:  # noqa: PT012
        runtime.chat("small", messages=SAY)
        raise ZeroDivisionError
    wait_for(fault_server, connections_open=0)


def test_after_the_block_every_method_says_that_it_is_closed():
    with spear.blocking.open_runtime(STUB) as runtime:
        pass
    calls = [
        lambda: runtime.chat(messages=SAY),
        lambda: runtime.invoke(chat()),
        lambda: runtime.run_guest(HELLO),
        runtime.snapshot,
        runtime.backends,
        lambda: runtime.stream(chat()).__enter__(),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="the runtime is closed"):
            call()


@pytest.mark.parametrize("what", ["chat", "stream", "open stream", "guest"])
def test_what_other_threads_wait_for_is_cancelled_with_the_block(fault_server, what):
    if what == "stream":
        fault_server.script(times=None, tokens_per_second=1, text="word " * 500)
    else:
        fault_server.script(times=None, never=True)
    ended = []
    inside = threading.Event()

    def ask(runtime):
        if what == "chat":
            runtime.chat("small", messages=SAY)
        elif what == "guest":
            runtime.run_guest(GUESTS, entry="chat_here", on_log=lambda _: inside.set())
        else:
            with runtime.stream(chat()) as events:
                for _ in events:
                    inside.set()

    def work(runtime):
        try:
            ask(runtime)
        except BaseException as error:
            ended.append(type(error))

    with spear.blocking.open_runtime(config(backend(fault_server))) as runtime:
        thread = threading.Thread(target=work, args=(runtime,))
        thread.start()
        wait_for(fault_server, open=1)
        if what in {"stream", "guest"}:
            assert inside.wait(5)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    thread.join(5)
    assert ended in ([CancelledError], [RuntimeError])  # the latter: between two events, asked when it was closed
    wait_for(fault_server, open=0, aborted=1)


def test_closing_while_threads_hammer_it():
    """Whatever the moment: an answer, a cancellation or "closed"; nobody waits for ever, nothing crashes."""
    for _ in range(15):
        seen = set()

        def hammer(runtime, seen=seen):
            try:
                while True:
                    runtime.chat(messages=SAY)
                    with runtime.stream(chat("a b", "")) as events:
                        for _ in events:
                            pass
            except (CancelledError, RuntimeError) as error:
                seen.add(type(error))

        with spear.blocking.open_runtime(STUB) as runtime:
            threads = [threading.Thread(target=hammer, args=(runtime,)) for _ in range(6)]
            for thread in threads:
                thread.start()
            time.sleep(0.03)
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert seen


INTERRUPTED = """
import sys, threading
import spear.blocking
source = {"spear": {"backends": [{"name": "a", "kind": "openai_chat", "hosting": "local", "base_url": sys.argv[1],
                                  "model": "small"}]}}
say = [{"role": "user", "content": "hi"}]
with spear.blocking.open_runtime(source) as runtime:
    print("open", flush=True)
    try:
        runtime.chat("small", messages=say)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(runtime.chat("small", messages=say).text, flush=True)
print(threading.active_count(), flush=True)
"""


def test_ctrl_c_in_a_waiting_call(fault_server):
    fault_server.script(times=1, never=True)
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, fault_server.base_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"open\n"
        wait_for(fault_server, open=1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, err) == (0, b"")
    lines = out.decode().splitlines()
    assert lines[:2] == ["interrupted", "echo: hi"]
    assert int(lines[2]) <= 2  # the main thread, and perhaps one idle worker of Trio's
    wait_for(fault_server, open=0, aborted=1, completed=1)


WHILE_OPENING = """
import os, signal, sys, threading, time
import spear.blocking, spear._open
slow = spear._open.load_config
def load_config(source):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
    return slow(source)
spear._open.load_config = load_config
try:
    with spear.blocking.open_runtime({"spear": {"backends": [{"name": "s", "kind": "stub", "hosting": "local"}]}}):
        print("opened")
except KeyboardInterrupt:
    print("interrupted", threading.active_count())
"""


def test_ctrl_c_while_it_opens():
    done = subprocess.run(
        [sys.executable, "-c", WHILE_OPENING], capture_output=True, timeout=20, check=False, text=True
    )
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted 1\n", "", 0)
