"""What a server says on stderr, to the host's log: in lines, so many and so long, without secrets."""

from __future__ import annotations

from typing import Final

import trio

from spear.secrets import Redactor
from spear.telemetry import get_logger

LINE_CHARS: Final = 500
BURST: Final = 100
PER_S: Final = 10.0
_PIECE: Final = 4096

_log = get_logger("spear.mcp")


class StderrLog:
    """`last` is the latest line, for people who ask why a server is not there."""

    def __init__(self, server: str, redact: Redactor) -> None:
        self._server = server
        self._redact = redact
        self._line = b""
        self._room = float(BURST)
        self._then = trio.current_time()
        self.dropped = 0
        self.last = ""

    async def run(self, stream: trio.abc.ReceiveStream) -> None:
        """To the end of the stream."""
        try:
            while data := await stream.receive_some(_PIECE):
                self.feed(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.feed(b"\n")

    def feed(self, data: bytes) -> None:
        *whole, rest = (self._line + data).split(b"\n")
        for line in whole:
            self._say(line)
        self._line = rest[: 4 * LINE_CHARS]

    def _say(self, line: bytes) -> None:
        raw = line[: 4 * LINE_CHARS].decode("utf-8", "replace").strip()
        text = self._redact("".join(c if c.isprintable() else " " for c in raw))[:LINE_CHARS]
        if not text:
            return
        self.last = text
        now = trio.current_time()
        self._room = min(BURST, self._room + (now - self._then) * PER_S)
        self._then = now
        if self._room < 1:
            self.dropped += 1
            return
        self._room -= 1
        _log.info("mcp_stderr", server=self._server, text=text, dropped=self.dropped)
