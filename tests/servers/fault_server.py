"""The test server as seen by tests and by the demonstration: one process each, ended with its parent at the latest.

`FaultServer` is synchronous: each call is one short request to the control plane of another process, fit for tests on
Trio and off it alike.
"""

from __future__ import annotations

import http.client
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import pytest
import trio

from tests.servers._behaviour import Behaviour, OperationName, Rule

_PROGRAM = Path(__file__).with_name("openai_server.py")
_START_LIMIT_S = 30.0
_STOP_LIMIT_S = 5.0
_CONTROL_LIMIT_S = 10.0


class FaultServer:
    """`with FaultServer(name="a") as server: ...`, or `start()` and `stop()`."""

    program = _PROGRAM

    def __init__(self, name: str = "test") -> None:
        self.name = name
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def root_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What goes into a backend's configuration."""
        return f"{self.root_url}/v1"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> Self:
        """Returns when the server listens; RuntimeError when it does not within 30 s."""
        command = [sys.executable, str(self.program), "--port", "0", "--name", self.name, "--until-stdin-closes"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process = process
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            line = process.stdout.readline() if selector.select(_START_LIMIT_S) else b""
        if not line:
            code = self.stop()
            raise RuntimeError(f"the test server did not start within {_START_LIMIT_S} s (exit code {code})")
        self.port = orjson.loads(line)["port"]
        return self

    def stop(self) -> int | None:
        """Ends the process: politely, then by force. Returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        return process.returncode

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- the script

    def script(
        self,
        behaviour: Behaviour | None = None,
        *,
        times: int | None = 1,
        model: str | None = None,
        stream: bool | None = None,
        key: str | None = None,
        operation: OperationName = "chat",
        **fields: Any,
    ) -> None:
        """Answer the next `times` matching requests this way (None: all of them); `key` is that of the request.
        `fields` make a Behaviour.

        Rules with a number of times go first, in the order given; among permanent ones the newest holds.
        """
        does = Behaviour(**fields) if behaviour is None else behaviour
        rule = Rule(does=does, times=times, operation=operation, model=model, stream=stream, key=key)
        self._control("POST", "script", [rule.model_dump(mode="json", exclude_unset=True)])

    def models(self, *names: str) -> None:
        """Only these models exist from now on; without names every model does."""
        self._control("POST", "models", list(names))

    def reset(self) -> None:
        """Drops every connection, the script, the models and the counts."""
        self._control("POST", "reset", {})

    # --- what was seen

    def counts(self) -> dict[str, int]:
        """total, open, most_open, completed, aborted, broken, connections_opened, connections_open, script_waiting."""
        counts: dict[str, int] = self._control("GET", "counts")
        return counts

    def requests(self) -> list[dict[str, Any]]:
        """The newest 256: number, method, path, headers (pairs), json, body, outcome."""
        requests: list[dict[str, Any]] = self._control("GET", "requests")
        return requests

    async def until(self, *, limit: float = 5.0, **expected: int) -> dict[str, int]:
        """Polls until the named counts have these values; AssertionError after `limit` seconds."""
        deadline = time.monotonic() + limit
        while True:
            counts = self.counts()
            if all(counts[name] == value for name, value in expected.items()):
                return counts
            if time.monotonic() > deadline:
                raise AssertionError(f"{expected} not reached within {limit} s: {counts}")
            await trio.sleep(0.01)

    def _control(self, method: str, what: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_CONTROL_LIMIT_S)
        try:
            payload = None if body is None else orjson.dumps(body)
            connection.request(method, f"/_control/{what}", payload, {"connection": "close"})
            response = connection.getresponse()
            answer = orjson.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(f"the test server refused {what}: {answer['error']['message']}")
        return answer


@pytest.fixture(scope="session")
def _server_pool() -> Iterator[list[Callable[[], FaultServer]]]:
    """Servers that tests share one after the other: starting one costs half a second."""
    with ExitStack() as stack:
        running: list[FaultServer] = []

        def number(at: int) -> FaultServer:
            while len(running) <= at:
                name = "abcdefgh"[len(running)]
                running.append(stack.enter_context(FaultServer(name)))
            running[at].reset()
            return running[at]

        yield [lambda at=at: number(at) for at in range(8)]  # type: ignore[misc]


@pytest.fixture
def fault_servers(_server_pool: list[Callable[[], FaultServer]]) -> Callable[[], FaultServer]:
    """Each call gives one more server of your own (at most 8), fresh for this test."""
    waiting = iter(_server_pool)

    def one_more() -> FaultServer:
        return next(waiting)()

    return one_more


@pytest.fixture
def fault_server(fault_servers: Callable[[], FaultServer]) -> FaultServer:
    """One scriptable server, fresh for this test."""
    return fault_servers()
