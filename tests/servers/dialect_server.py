"""A scriptable server of other dialects than OpenAI's, as seen by tests: one process that speaks all of them, each on
paths of its own.

    with DialectServer() as server:
        server.script(text="hi")

Scripts and counts are those of `FaultServer`. Embeddings are scripted as chat is; the lists of models as `models`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.fault_server import FaultServer


class DialectServer(FaultServer):
    program = Path(__file__).with_name("dialect_server_process.py")

    @property
    def base_url(self) -> str:
        return self.root_url


@pytest.fixture(scope="session")
def _dialect_server_process() -> Iterator[DialectServer]:
    with DialectServer("d") as server:
        yield server


@pytest.fixture
def dialect_server(_dialect_server_process: DialectServer) -> DialectServer:
    """The one server, fresh for this test."""
    _dialect_server_process.reset()
    return _dialect_server_process
