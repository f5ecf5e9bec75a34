"""The process behind `DialectServer`.

    POST /api/chat, /api/embed; GET /api/ps, /api/tags      Ollama's dialect
    POST /v1/messages                                       Anthropic's dialect
    POST /odd/...                                           one of nobody's, see _odd_dialect.py
    /_control/...                                           as in openai_server.py

Of the models that exist, those whose name begins with "idle" are installed and not served.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import orjson
import trio

from tests.servers._anthropic_dialect import ANTHROPIC
from tests.servers._behaviour import Behaviour
from tests.servers._connection import Reply
from tests.servers._counts import Exchange
from tests.servers._dialect import Dialect, read_json, steps
from tests.servers._odd_dialect import ODD
from tests.servers._ollama_dialect import OLLAMA, models
from tests.servers._plan import Caller, Send, plain
from tests.servers._reply import BadRequest, Question
from tests.servers.openai_server import Server

_POST: dict[str, Dialect] = {"/api/chat": OLLAMA, "/api/embed": OLLAMA, "/v1/messages": ANTHROPIC}
_POST |= {f"/odd/{what}": ODD for what in ("chat", "embed", "draw", "say", "hear")}
_LISTS: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "/api/tags": models,
    "/api/ps": lambda names: models([name for name in names if not name.startswith("idle")]),
}


class Dialects(Server):
    def early(self, exchange: Exchange) -> Reply | None:
        dialect = _POST.get(exchange.path)
        behaviour = self._script.take_early("chat", self._bearer(dialect, exchange)) if dialect else None
        return self._steps(dialect, exchange, behaviour, None) if dialect and behaviour else None

    def reply(self, exchange: Exchange, body: bytes) -> Reply:
        path = exchange.path
        if exchange.method == "GET" and path in _LISTS:
            behaviour = self._script.take("models", None, None, exchange.header("authorization"))
            return self._steps(OLLAMA, exchange, behaviour, _LISTS[path](self._models))
        dialect = _POST.get(path)
        if dialect is None or exchange.method != "POST":
            return _whole(404, {"error": f"no such page: {exchange.method} {path}"})
        value = read_json(body)
        try:
            if not isinstance(value, dict):
                raise BadRequest("the body is no JSON object")
            question = dialect.read(path, value)
        except BadRequest as error:
            return _whole(400, dialect.error(error.message, "invalid_request_error", None))
        model = value.get("model")
        if self._models and model not in self._models:
            return _whole(404, dialect.error(f"model '{model}' not found", "not_found_error", None))
        streamed = isinstance(question, Question) and question.stream
        behaviour = self._script.take("chat", model, streamed, self._bearer(dialect, exchange))
        return self._steps(dialect, exchange, behaviour, question)

    def _bearer(self, dialect: Dialect | None, exchange: Exchange) -> str:
        return "" if dialect is None else f"Bearer {dialect.key(exchange.header)}"

    def _steps(
        self, dialect: Dialect, exchange: Exchange, behaviour: Behaviour, question: Question | dict[str, Any] | None
    ) -> Reply:
        caller = Caller(self.name, exchange.number, dialect.key(exchange.header))
        return Reply(steps(dialect, behaviour, question, caller), close=behaviour.close)


def _whole(status: int, body: dict[str, Any]) -> Reply:
    return Reply(iter([Send(plain(status, orjson.dumps(body)))]))


async def _serve(port: int, name: str) -> None:
    server = Dialects(name)
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, server.handle, listeners))
        address = listeners[0].socket.getsockname()
        sys.stdout.write(orjson.dumps({"port": address[1], "name": name}).decode() + "\n")
        sys.stdout.flush()
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as parent:
            while await parent.receive_some(1024):
                pass
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description="A scriptable test server of other dialects, on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free one")
    parser.add_argument("--name", default="d")
    parser.add_argument("--until-stdin-closes", action="store_true", help="what it always does")
    options = parser.parse_args()
    trio.run(_serve, options.port, options.name)


if __name__ == "__main__":
    main()
