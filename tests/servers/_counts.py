"""What the test server saw: how many requests, how each ended, and the newest of them in full."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

Outcome = Literal["open", "completed", "aborted", "broken"]
KEPT_REQUESTS = 256
KEPT_BODY_BYTES = 1 << 20
_KEPT_BYTES_IN_ALL = 64 << 20


@dataclass(slots=True)
class Exchange:
    """One request and how it ended.

    completed: the last byte of the answer was handed over; aborted: the client left before that;
    broken: the script ended the connection.
    """

    number: int
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    outcome: Outcome = "open"

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def public(self) -> dict[str, Any]:
        try:
            parsed = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            parsed = None
        return {
            "number": self.number,
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "json": parsed,
            "body": self.body.decode("utf-8", "replace"),
            "outcome": self.outcome,
        }


@dataclass(slots=True)
class Counts:
    """total = open + completed + aborted + broken. The control plane's own requests and connections are not counted."""

    total: int = 0
    open: int = 0
    most_open: int = 0
    completed: int = 0
    aborted: int = 0
    broken: int = 0
    connections_opened: int = 0
    connections_open: int = 0
    exchanges: deque[Exchange] = field(default_factory=deque)
    kept_bytes: int = 0

    def begin(self, method: str, path: str, headers: list[tuple[str, str]]) -> Exchange:
        self.total += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        exchange = Exchange(self.total, method, path, headers)
        self.exchanges.append(exchange)
        if len(self.exchanges) > KEPT_REQUESTS:
            self.kept_bytes -= len(self.exchanges.popleft().body)
        return exchange

    def keep_body(self, exchange: Exchange, body: bytes) -> None:
        """The newest bodies are kept; older ones make room."""
        if exchange.number < self.exchanges[0].number:
            return  # so slow that it is no longer among the newest
        exchange.body = body[:KEPT_BODY_BYTES]
        self.kept_bytes += len(exchange.body)
        for kept in self.exchanges:
            if self.kept_bytes <= _KEPT_BYTES_IN_ALL:
                return
            self.kept_bytes -= len(kept.body)
            kept.body = b""

    def finish(self, exchange: Exchange, outcome: Literal["completed", "aborted", "broken"]) -> None:
        assert exchange.outcome == "open", f"request {exchange.number} ended twice"
        exchange.outcome = outcome
        self.open -= 1
        setattr(self, outcome, getattr(self, outcome) + 1)

    def public(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__ if name not in ("exchanges", "kept_bytes")}
