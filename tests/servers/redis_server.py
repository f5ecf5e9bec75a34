"""A real redis-server process of the tests: on a free port, without persistence, ended with the test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

_START_LIMIT_S = 10.0


class RedisServer:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Returns when it answers; after `kill` on the same port, empty."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL)
        ends = time.monotonic() + _START_LIMIT_S
        while self._ask(b"PING\r\n") != b"+PONG\r\n":
            if time.monotonic() > ends:
                raise RuntimeError(f"redis-server did not start within {_START_LIMIT_S} s")
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def clear(self) -> None:
        assert self._ask(b"FLUSHALL\r\n") == b"+OK\r\n"

    def hang(self, milliseconds: int) -> None:
        """It accepts connections and answers nobody for that long."""
        assert self._ask(b"CLIENT PAUSE %d ALL\r\n" % milliseconds) == b"+OK\r\n"

    def ask(self, *words: object) -> bytes:
        """Any command with arguments; the beginning of the answer as it came."""
        parts = [str(word).encode() for word in words]
        return self._ask(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(each), each) for each in parts))

    def names(self) -> list[str]:
        return self.ask("KEYS", "*").decode().split("\r\n")[2::2]

    def _ask(self, command: bytes) -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(command)
                return connection.recv(4096)
        except OSError:
            return b""


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path).start()
    try:
        yield server
    finally:
        server.kill()
