"""The two stand-ins for OpenAI-compatible servers that `spear demo` talks to: real processes, real sockets, no model.

They are the project's own test server: in a checkout the one in tests/servers, in a wheel the copy that the build
puts beside this file.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

import spear

_SCRIPT: Final = "tests/servers/openai_server.py"
_START_SECONDS: Final = 20.0


class DemoServer:
    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def does(self, **behaviour: Any) -> None:
        """Answer every request this way from now on."""
        await self._control("POST", "script", [{"does": behaviour}])

    async def counts(self) -> dict[str, int]:
        """total, open, completed, aborted, …"""
        counts: dict[str, int] = await self._control("GET", "counts")
        return counts

    async def _control(self, method: str, what: str, body: object = None) -> Any:
        return await trio.to_thread.run_sync(self._ask, method, what, body)

    def _ask(self, method: str, what: str, body: object) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, f"/_control/{what}", None if body is None else json.dumps(body))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def server_script() -> Path:
    """Where the server's program is. Raises FileNotFoundError where a build left it out."""
    package = Path(spear.__file__).parent
    for root in (package.parent, package / "cli" / "_demo_server_files"):
        if (root / _SCRIPT).is_file():
            return root / _SCRIPT
    raise FileNotFoundError(_SCRIPT)


@asynccontextmanager
async def open_server(name: str) -> AsyncIterator[DemoServer]:
    """A server process for as long as the block lasts; it ends with this process, however that ends."""
    process = await trio.lowlevel.open_process(
        [sys.executable, str(server_script()), "--port", "0", "--name", name, "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # the terminal's Ctrl-C is ours to handle
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = b""
        with trio.move_on_after(_START_SECONDS):
            while not line.endswith(b"\n"):
                piece = await process.stdout.receive_some()
                if not piece:
                    break
                line += piece
        if not line.endswith(b"\n"):
            raise RuntimeError(f"the demo server {name} did not start")
        yield DemoServer(name, json.loads(line)["port"])
    finally:
        process.kill()
        with trio.CancelScope(shield=True):  # it is dead; this only collects it
            await process.wait()
        await process.stdin.aclose()
        await process.stdout.aclose()
