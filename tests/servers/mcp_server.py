"""An MCP server of plain JSON-RPC, with faults: `python mcp_server.py FAULT [FILE]` on stdio, or with `--http` behind
streamable HTTP on a port that it prints. It needs nothing but Python.

FILE, where there is one, gets a line for each thing that happens: start, the environment's names, messages, the end.

Faults, by when they bite:
    at the start   exits, slow, hang, junk, not-utf8, endless, flood, old, no-version
    in the list    lies-list, no-list, many, bad-schemas, pages, list-error, list-dies
    in a call      dies, hang-call, wrong-id, string-id, twice, not-a-result, error, huge, echo-env, asks, noise,
                   closes, never-ending
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OBJECT = {"type": "object", "properties": {"text": {"type": "string"}}}
TOOLS = [
    {"name": "echo", "description": "Says it again.", "inputSchema": OBJECT},
    {"name": "read_file", "description": "Reads.", "inputSchema": OBJECT},
    {"name": "write_file", "inputSchema": OBJECT},
]


class Server:
    def __init__(self, fault: str, path: str = "") -> None:
        self.fault = fault
        self._path = path
        self._lock = threading.Lock()

    def note(self, text: str) -> None:
        if self._path:
            with self._lock, open(self._path, "a", encoding="utf-8") as file:
                file.write(text + "\n")

    def answer(self, message: dict[str, Any]) -> list[Any]:
        """Messages, or bytes that are none."""
        method, number = message.get("method"), message.get("id")
        self.note(
            f"{method or 'answer'} {json.dumps(message.get('params', message.get('result', message.get('error'))))}"
        )
        if method is None or number is None:
            return []
        if method == "initialize":
            return self._initialize(number)
        if method == "tools/list":
            return self._list(number, message.get("params", {}))
        if method == "tools/call":
            return self._call(number, message["params"])
        return [{"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": "no such method"}}]

    def _initialize(self, number: Any) -> list[Any]:
        result: dict[str, Any] = {
            "protocolVersion": "1999-01-01" if self.fault == "old" else "2025-06-18",
            "capabilities": {"tools": {"listChanged": self.fault in {"changes", "changes-silently"}}},
            "serverInfo": {"name": "plain", "version": "1"},
        }
        if self.fault == "no-version":
            del result["protocolVersion"]
        if self.fault == "exits":
            sys.stderr.write("cannot open /etc/nothing\n")
            sys.exit(3)
        if self.fault == "slow":
            time.sleep(0.6)
        if self.fault == "hang":
            time.sleep(3600)
        first: list[Any] = []
        if self.fault == "junk":
            first = [b"Starting up ...\n", b"{}\n", b"[1,2\n", b'{"jsonrpc":"2.0","id":77,"result":{}}\n', b"\n"]
        if self.fault == "not-utf8":
            first = [b"\xff\xfe\n"]
        if self.fault == "endless":
            return [b"x" * 65536] * 400
        if self.fault == "flood":
            note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"' + b"x" * 4000 + b'"}}\n'
            return [note] * 6000
        return [*first, ok(number, result)]

    def _list(self, number: Any, params: dict[str, Any]) -> list[Any]:
        tools: Any = TOOLS
        result: dict[str, Any] = {}
        if self.fault == "list-error":
            return [failed(number, "no tools today")]
        if self.fault == "list-dies":
            sys.exit(4)
        if self.fault == "lies-list":
            tools = "none"
        if self.fault == "no-list":
            return [ok(number, [])]
        if self.fault == "many":
            tools = [{"name": f"t{n}", "inputSchema": OBJECT} for n in range(700)]
        if self.fault == "bad-schemas":
            bad = [
                {"name": "b1", "inputSchema": "x"},
                {"name": "b2", "inputSchema": {"type": 5}},
                7,
                {"inputSchema": {}},
            ]
            tools = [*bad, *TOOLS]
        if self.fault == "pages":
            page = int(params.get("cursor", "0"))
            tools = TOOLS[page : page + 1]
            result = {"nextCursor": str(page + 1)} if page < 2 else {}
        if self.fault == "changes" and params.get("cursor") is None:
            self.fault = "changed"
            # The list of before, and at once the news that it is another.
            return [ok(number, {"tools": TOOLS[:1]}), notice("notifications/tools/list_changed")]
        return [ok(number, {"tools": tools, **result})]

    def _call(self, number: Any, params: dict[str, Any]) -> list[Any]:
        text = str(params.get("arguments", {}).get("text", ""))
        good = ok(number, {"content": [{"type": "text", "text": f"{params['name']}: {text}"}], "isError": False})
        if self.fault == "dies":
            os._exit(7)
        if self.fault == "closes":
            os.close(1)
            time.sleep(3600)
        if self.fault == "hang-call" or text == "hang":
            time.sleep(3600)
        if text == "sleep":
            time.sleep(0.3)
        if self.fault == "wrong-id":
            return [{**good, "id": number + 1000}]
        if self.fault == "string-id":
            return [{**good, "id": str(number)}]
        if self.fault == "twice":
            return [good, ok(number, {"content": [{"type": "text", "text": "another"}]})]
        if self.fault == "not-a-result":
            return [ok(number, "done")]
        if self.fault == "neither":
            return [{"jsonrpc": "2.0", "id": number}]
        if self.fault == "error":
            return [failed(number, f"no such file; key is {os.environ.get('TOKEN', '')}")]
        if self.fault == "huge":
            return [ok(number, {"content": [{"type": "text", "text": "é" * 200_000}]})]
        if self.fault == "never-ending":
            return [b'{"jsonrpc":"2.0","id":1,"result":"' + b"x" * 65536] + [b"x" * 65536] * 300
        if self.fault == "echo-env":
            names = sorted(os.environ)
            return [ok(number, {"content": [{"type": "text", "text": json.dumps(names)}], "env": dict(os.environ)})]
        if self.fault == "asks":
            return [
                {"jsonrpc": "2.0", "id": "q1", "method": "ping"},
                {"jsonrpc": "2.0", "id": "q2", "method": "sampling/createMessage", "params": {}},
                good,
            ]
        if self.fault == "noise":
            sys.stderr.write("".join(f"line {n} of noise\n" for n in range(5000)))
            sys.stderr.flush()
        return [good]


def ok(number: Any, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "result": result}


def failed(number: Any, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": -32000, "message": message}}


def notice(method: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method}


def as_bytes(item: Any) -> bytes:
    return item if isinstance(item, bytes) else json.dumps(item).encode() + b"\n"


def on_stdio(server: Server) -> None:
    """Calls of tools each in a thread, as a server with several clients' calls would."""
    server.note(f"start {os.getpid()}")
    if server.fault == "child":  # something of its own that outlives it
        for group in (None, 0):  # in the server's group, and in one of its own
            program = [sys.executable, "-c", "import time; time.sleep(3600)"]
            subprocess.Popen(program, stdin=subprocess.DEVNULL, process_group=group)
    lock = threading.Lock()

    def handle(message: dict[str, Any]) -> None:
        items = server.answer(message)
        with lock:
            try:
                for item in items:
                    os.write(1, as_bytes(item)) if len(as_bytes(item)) < 4096 else write_all(as_bytes(item))
            except OSError:
                os._exit(0)

    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "tools/call":
            threading.Thread(target=handle, args=(message,), daemon=True).start()
        else:
            handle(message)
    server.note("end")
    os._exit(0)


def write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        mcp: Server = self.server.mcp
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(body)
        mcp.note(
            f"POST {message.get('method')} session={self.headers.get('Mcp-Session-Id')} "
            f"version={self.headers.get('MCP-Protocol-Version')} authorization={self.headers.get('Authorization')} "
            f"custom={self.headers.get('X-Custom')}"
        )
        call = message.get("method") == "tools/call"
        if mcp.fault == "redirect" and call:
            return self._send(307, b"", location="http://127.0.0.1:9/elsewhere")
        if mcp.fault == "refuses" and call:
            return self._send(403, b"no")
        if mcp.fault == "forgets" and call:
            mcp.fault = ""
            return self._send(404, b"no such session")
        if mcp.fault == "html" and call:
            return self._send(200, b"<html>", kind="text/html")
        if mcp.fault == "endless-body" and call:
            return self._stream(True)
        items = mcp.answer(message)
        if not items:
            return self._send(202, b"")
        session = {"session": "s-1"} if message.get("method") == "initialize" else {}
        if mcp.fault.startswith("sse") and call:
            return self._events(items)
        return self._send(200, as_bytes(items[-1]), kind="application/json", **session)

    def do_DELETE(self) -> None:
        self.server.mcp.note(f"DELETE session={self.headers.get('Mcp-Session-Id')}")
        self._send(200, b"")

    def _events(self, items: list[Any]) -> None:
        mcp: Server = self.server.mcp
        items = [notice("notifications/message"), {"jsonrpc": "2.0", "id": "q", "method": "ping"}, *items]
        if mcp.fault == "sse-cut":
            items = items[:-1]
        data = b"".join(b"event: message\ndata: " + as_bytes(item) + b"\n" for item in items)
        self._send(200, data, kind="text/event-stream")

    def _stream(self, endless: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while endless:
                self.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        except OSError:
            self.close_connection = True

    def _send(self, status: int, body: bytes, kind: str = "", location: str = "", session: str = "") -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Location", location), ("Mcp-Session-Id", session)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def on_http(server: Server) -> None:
    listener: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    listener.mcp = server
    os.write(1, f"{listener.server_address[1]}\n".encode())
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    listener.serve_forever()


def main() -> None:
    arguments = [each for each in sys.argv[1:] if each != "--http"]
    server = Server(*arguments[:2])
    (on_http if "--http" in sys.argv else on_stdio)(server)


if __name__ == "__main__":
    main()
