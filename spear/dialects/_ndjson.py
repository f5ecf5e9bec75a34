"""Newline-delimited JSON: bytes in, lines out."""

from __future__ import annotations

from typing import Final

from spear.ir import BackendError, ErrorCode, Failure, make_error

MAX_LINE: Final = 1024 * 1024


class LineDecoder:
    """Holds at most one unfinished line, of at most `max_line` bytes. A longer one raises `BackendError`; lines that
    were complete before it are handed out first. Lines end with LF or CRLF; blank ones give nothing."""

    def __init__(self, *, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._rest = b""
        self._too_long = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends."""
        if self._too_long:
            raise self._error()
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines = []
        for line in whole:
            if len(line) > self._max_line:
                self._too_long = True
                break
            if line := line.strip():
                lines.append(line)
        self._too_long = self._too_long or len(self._rest) > self._max_line
        if self._too_long and not lines:
            raise self._error()
        return lines

    def finish(self) -> list[bytes]:
        """What stood last without a line end; a broken connection may have cut it short."""
        if self._too_long:
            raise self._error()
        line, self._rest = self._rest.strip(), b""
        return [line] if line else []

    def _error(self) -> BackendError:
        message = f"a line of the stream is longer than {self._max_line} bytes"
        return BackendError(make_error(ErrorCode.BACKEND_ERROR, message), Failure.SERVER)
