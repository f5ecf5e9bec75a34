"""A scriptable OpenAI-compatible server over real sockets, for tests and demonstrations.

    python -m tests.servers.openai_server --port 0 --name a

prints {"port": 40123, "name": "a"} on one line and serves until it is killed (or, with --until-stdin-closes, until its
parent closes the pipe). Without a script it is well-behaved and deterministic: it echoes the last user text, calls the
first tool when that text holds two integers, and answers a JSON schema with a small fitting value.

    POST /v1/chat/completions, GET /v1/models      the API
    POST /v1/embeddings, /v1/images/…, /v1/audio/… its other operations (see _operations.py)
    POST /openai/deployments/{name}/…?api-version= all of them as Azure has them
    POST /_control/script   [rule, ...]            adds rules (see _behaviour.py)
    POST /_control/models   ["name", ...]          the models that exist; none given: every model does
    GET  /_control/counts, /_control/requests      what was seen
    POST /_control/reset                           drops every connection, the script and the counts
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

if __package__ in (None, ""):  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import orjson
import trio
from pydantic import TypeAdapter, ValidationError

from tests.servers._behaviour import Behaviour, Rule, Script
from tests.servers._connection import Connection, Reply
from tests.servers._counts import Counts, Exchange
from tests.servers._operations import PATHS, Operation, answer
from tests.servers._plan import Caller, Send, Step, plain, plan
from tests.servers._reply import BadRequest, Question, error_body, read_question

_RULES = TypeAdapter(list[Rule])
_NAMES = TypeAdapter(list[str])
_CONTROL = "/_control/"
_MAX_CONNECTIONS = 4096
_DEPLOYMENT = re.compile(r"/openai/deployments/[^/]+(/.*)")


class Server:
    def __init__(self, name: str) -> None:
        self.name = name
        self.counts = Counts()
        self._script = Script()
        self._models: list[str] = []
        self._living: dict[Connection, trio.CancelScope] = {}

    async def handle(self, stream: trio.SocketStream) -> None:
        if len(self._living) >= _MAX_CONNECTIONS:
            return  # closes it
        connection = Connection(stream, self)
        with trio.CancelScope() as scope:
            self._living[connection] = scope
            try:
                await connection.serve()
            finally:
                del self._living[connection]

    # --- the API

    def early(self, exchange: Exchange) -> Reply | None:
        operation = _operation(exchange)
        behaviour = self._script.take_early(operation, exchange.header("authorization")) if operation else None
        return self._reply(exchange, behaviour, None) if behaviour else None

    def reply(self, exchange: Exchange, body: bytes) -> Reply:
        operation = _operation(exchange)
        if operation in PATHS.values():
            return self._operate(exchange, operation, body)
        if operation is None:
            return _error(404, f"Unknown request URL: {exchange.method} {exchange.path}")
        wanted = {"chat": "POST", "models": "GET"}[operation]
        if exchange.method != wanted:
            return _error(405, f"Not allowed to {exchange.method} on {exchange.path}, only {wanted}")
        if operation == "models":
            behaviour = self._script.take("models", None, None, exchange.header("authorization"))
            listing = orjson.dumps({"object": "list", "data": [_model(m) for m in self._models]}).decode()
            if behaviour.body is None and behaviour.status == 200:
                behaviour = behaviour.model_copy(update={"body": listing})
            return self._reply(exchange, behaviour, None)
        try:
            question = read_question(body)
        except BadRequest as error:
            return _error(400, error.message, param=error.param)
        if self._models and question.model not in self._models:
            return _error(404, f"The model `{question.model}` does not exist", code="model_not_found")
        behaviour = self._script.take("chat", question.model, question.stream, exchange.header("authorization"))
        return self._reply(exchange, behaviour, question)

    def _operate(self, exchange: Exchange, operation: Operation, body: bytes) -> Reply:
        if exchange.method != "POST":
            return _error(405, f"Not allowed to {exchange.method} on {exchange.path}, only POST")
        try:
            given = answer(operation, body, exchange.header("content-type"))
        except BadRequest as error:
            return _error(400, error.message, param=error.param)
        streamed = given.events is not None
        behaviour = self._script.take(operation, given.model, streamed, exchange.header("authorization"))
        return Reply(plan(behaviour, None, self._caller(exchange), given), close=behaviour.close)

    def _reply(self, exchange: Exchange, behaviour: Behaviour, question: Question | None) -> Reply:
        return Reply(plan(behaviour, question, self._caller(exchange)), close=behaviour.close)

    def _caller(self, exchange: Exchange) -> Caller:
        return Caller(self.name, exchange.number, exchange.header("authorization"))

    # --- the control plane

    def is_control(self, target: str) -> bool:
        return target.startswith(_CONTROL)

    def control(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        try:
            answer = self._controlled(method, target.removeprefix(_CONTROL), body)
        except ValidationError as error:
            return 400, orjson.dumps(error_body(str(error), "control"))
        if answer is None:
            return 404, orjson.dumps(error_body(f"no such control: {method} {target}", "control"))
        return 200, orjson.dumps(answer)

    def _controlled(self, method: str, what: str, body: bytes) -> object:
        match method, what:
            case "POST", "script":
                for rule in _RULES.validate_json(body):
                    self._script.add(rule)
            case "POST", "models":
                self._models = _NAMES.validate_json(body)
            case "POST", "reset":
                self._reset()
            case "GET", "counts":
                return {**self.counts.public(), "script_waiting": self._script.waiting}
            case "GET", "requests":
                return [exchange.public() for exchange in self.counts.exchanges]
            case _:
                return None
        return {}

    def _reset(self) -> None:
        """Connections of the time before end now; they count for the old counts, which nobody reads any more."""
        self.counts = Counts()
        self._script.clear()
        self._models = []
        for connection, scope in self._living.items():
            if not connection.is_control:
                scope.cancel()


def _operation(exchange: Exchange) -> str | None:
    """Below /v1, or below a deployment of Azure's, which needs a version and has its key in a header of its own."""
    path, _, query = exchange.path.partition("?")
    if found := _DEPLOYMENT.fullmatch(path):
        path = f"/v1{found[1]}" if "api-version=" in query and exchange.header("api-key") else ""
    paths = {"/chat/completions": "chat", "/models": "models", **PATHS}
    return paths.get(path.removeprefix("/v1")) if path.startswith("/v1/") else None


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "test"}


def _error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> Reply:
    body = orjson.dumps(error_body(message, "invalid_request_error", code, param))
    return Reply(_whole(plain(status, body)))


def _whole(data: bytes) -> Iterator[Step]:
    yield Send(data)


async def _serve(port: int, name: str, *, until_stdin_closes: bool) -> None:
    server = Server(name)
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, server.handle, listeners))
        address = listeners[0].socket.getsockname()
        sys.stdout.write(orjson.dumps({"port": address[1], "name": name}).decode() + "\n")
        sys.stdout.flush()
        if until_stdin_closes:
            async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as parent:
                while await parent.receive_some(1024):
                    pass
            nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description="A scriptable OpenAI-compatible test server on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free one")
    parser.add_argument("--name", default="test", help="shown in ids and in the template {server}")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the parent process")
    options = parser.parse_args()
    trio.run(partial(_serve, options.port, options.name, until_stdin_closes=options.until_stdin_closes))


if __name__ == "__main__":
    main()
