"""Server-sent events: bytes in, the payloads of `data` fields out.

Line ends are CR, LF or CRLF, wherever the chunks are cut; several data lines of one event are joined by LF; comments,
empty events and the other fields (event, id, retry) give nothing.
"""

from __future__ import annotations

from typing import Final

from spear.ir import BackendError, ErrorCode, Failure, Operation, make_error

MAX_LINE: Final = 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


class SseDecoder:
    """Holds at most one unfinished line and one unfinished event, each of at most `max_line` bytes. What is longer
    raises `BackendError`; payloads that were complete before that are handed out first, so that the cutting of the
    bytes changes nothing."""

    def __init__(self, *, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._at_start = True
        self._too_long = False

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes."""
        if self._too_long:
            raise self._error()
        payloads: list[bytes] = []
        if not (self._after_cr or self._at_start) and b"\n" in data and b"\r" not in data:
            data = self._take_plain(data, payloads)
        for line in data.splitlines(keepends=True):  # of bytes: at CR, LF and CRLF, nowhere else
            if self._after_cr and line == b"\n":
                self._after_cr = False
                continue
            self._after_cr = line.endswith(b"\r")
            self._line += line
            if line.endswith((b"\r", b"\n")):
                whole = bytes(self._line).rstrip(b"\r\n")
                self._line.clear()
                self._too_long = len(whole) > self._max_line or not self._take(whole, payloads)
            else:
                self._too_long = len(self._line) > self._max_line
            if self._too_long:
                break
        if self._too_long and not payloads:
            raise self._error()
        return payloads

    def finish(self) -> list[bytes]:
        """What stood last without the empty line that ends an event: some servers leave it out. A broken connection
        may have cut this payload short; then it does not parse, and the stream was truncated."""
        if self._too_long:
            raise self._error()
        payloads: list[bytes] = []
        line = bytes(self._line)
        self._line.clear()
        if (line and not self._take(line, payloads)) or not self._take(b"", payloads):
            raise self._error()
        return payloads

    def _take_plain(self, data: bytes, payloads: list[bytes]) -> bytes:
        """What nearly all servers send, events of one line each, at a fifth of the cost; returns the rest."""
        if self._data:
            if self._line or not data.startswith(b"\n") or not self._take(b"", payloads):
                return data
            data = data[1:]
        elif self._line:
            data = bytes(self._line) + data
            self._line.clear()
        start = 0
        while (end := data.find(b"\n\n", start)) > 0:
            if not data.startswith(b"data: ", start) or data.find(b"\n", start, end) >= 0:
                break
            if not 6 < end - start <= self._max_line:
                break
            payloads.append(data[start + 6 : end])
            start = end + 2
        return data[start:] if start else data

    def _take(self, line: bytes, payloads: list[bytes]) -> bool:
        """Whether the event is still within the limit."""
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                payload = b"\n".join(self._data)
                self._data.clear()
                self._size = 0
                if payload:
                    payloads.append(payload)
            return True
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._size += len(value) + 1
        return self._size <= self._max_line

    def _error(self) -> BackendError:
        return BackendError(
            make_error(
                ErrorCode.BACKEND_ERROR,
                f"a line or event of the stream is longer than {self._max_line} bytes",
                operation=Operation.CHAT_COMPLETIONS,
            ),
            Failure.SERVER,
        )
