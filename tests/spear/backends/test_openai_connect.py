"""Before anything is sent: refused, unresolved, never accepted, distrusted. Real sockets, real TLS."""

from __future__ import annotations

import errno
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from spear.backends._http import _transport
from spear.backends._http._transport import OtherOriginError, PoolTransport
from spear.egress import Origin
from spear.ir import BackendError, ErrorCode, Failure
from tests.spear.backends._support import adapter_to, ask, call, use

LIMIT = 20.0
BODY = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"over TLS"},"finish_reason":"stop"}]}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


async def failure_of(base_url: str, how: str = "plain", **conditions: float) -> BackendError:
    with trio.fail_after(LIMIT):
        async with adapter_to(base_url) as adapter:
            with pytest.raises(BackendError) as caught:
                await use(adapter, how, ask(), call(**conditions))
    return caught.value


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that refuses: bound, never listening."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_refused(free_port: int, how: str) -> None:
    error = await failure_of(f"http://127.0.0.1:{free_port}/v1", how)
    assert (error.code, error.failure) == (ErrorCode.BACKEND_UNAVAILABLE, Failure.CONNECT)
    assert error.error.message == "cannot connect to the backend: connection refused"


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_never_accepted(how: str) -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in (first, second):  # the queue of one is full: the kernel drops further SYNs
            filler.setblocking(False)
            assert filler.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        await trio.sleep(0.05)
        error = await failure_of(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", how, connect=0.3)
    assert (error.code, error.failure) == (ErrorCode.TIMEOUT, Failure.CONNECT)
    assert error.error.clock == "connect"


class _NoSuchName(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


async def test_a_name_that_does_not_resolve() -> None:
    trio.socket.set_custom_hostname_resolver(_NoSuchName())
    error = await failure_of("http://no_such-host.internal:1234/v1")
    assert (error.code, error.failure) == (ErrorCode.BACKEND_UNAVAILABLE, Failure.CONNECT)
    assert error.error.message == "cannot connect to the backend: its host name cannot be resolved"


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `localhost`, signed by itself; key and certificate in one file."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    name = ["-addext", "subjectAltName=DNS:localhost", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run([*request, *name, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


async def _serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
    """Answers each request of a connection the same way; the client's way of leaving is its own business."""
    received = b""
    with suppress(trio.BrokenResourceError):
        while data := await stream.receive_some():
            received += data
            head, separator, body = received.partition(b"\r\n\r\n")
            if not separator:
                continue
            wanted = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"content-length" in line.lower())
            if len(body) >= wanted:
                await stream.send_all(ANSWER)
                received = b""


async def _tls_server(nursery: trio.Nursery, certificate: Path, handler: Any = _serve) -> int:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(
        trio.serve_listeners,
        handler,
        [trio.SSLListener(listener, context, https_compatible=True) for listener in listeners],
    )
    return int(listeners[0].socket.getsockname()[1])


@pytest.fixture
def trusting(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(_transport, "shared_ssl_context", lambda: context)


@pytest.mark.usefixtures("trusting")
async def test_over_tls(nursery: trio.Nursery, certificate: Path) -> None:
    port = await _tls_server(nursery, certificate)
    with trio.fail_after(LIMIT):
        async with adapter_to(f"https://localhost:{port}/v1") as adapter:
            for _ in range(2):  # the second one on the same connection
                answer = await adapter.invoke(ask(), call())
                assert answer.payload.text == "over TLS"  # type: ignore[union-attr]


async def test_a_certificate_of_nobody_we_know(nursery: trio.Nursery, certificate: Path) -> None:
    port = await _tls_server(nursery, certificate)
    error = await failure_of(f"https://localhost:{port}/v1")
    assert (error.code, error.failure) == (ErrorCode.BACKEND_UNAVAILABLE, Failure.CONNECT)
    assert "its certificate is not accepted" in error.error.message


@pytest.mark.usefixtures("trusting")
async def test_a_certificate_of_another_name(nursery: trio.Nursery, certificate: Path) -> None:
    port = await _tls_server(nursery, certificate)
    error = await failure_of(f"https://127.0.0.1:{port}/v1")
    assert error.failure is Failure.CONNECT
    assert "its certificate is not accepted" in error.error.message
    assert "127.0.0.1" not in error.error.message


async def _silent(listener: trio.SocketListener, seen: list[bytes], gone: trio.Event) -> None:
    async with listener, await listener.accept() as stream:
        while data := await stream.receive_some():
            seen.append(data)
    gone.set()


@pytest.mark.parametrize("way", ["clock", "cancel"])
async def test_a_handshake_that_never_ends_is_closed(nursery: trio.Nursery, way: str) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    seen: list[bytes] = []
    gone = trio.Event()
    nursery.start_soon(_silent, listener, seen, gone)
    base_url = f"https://127.0.0.1:{listener.socket.getsockname()[1]}/v1"
    if way == "clock":
        error = await failure_of(base_url, connect=0.3)
        assert (error.code, error.failure, error.error.clock) == (ErrorCode.TIMEOUT, Failure.CONNECT, "connect")
    else:
        async with adapter_to(base_url) as adapter:
            with trio.move_on_after(0.3) as scope:
                await use(adapter, "plain", ask(), call())
            assert scope.cancelled_caught
    with trio.fail_after(2):
        await gone.wait()  # the server saw the end of the connection
    assert seen  # and before that the client's hello


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_cancelling_over_tls_closes_the_socket(nursery: trio.Nursery, certificate: Path, how: str) -> None:
    asked, gone = trio.Event(), trio.Event()

    async def silent(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.receive_some()
        asked.set()
        with suppress(trio.BrokenResourceError):  # no goodbye came, only the end
            assert await stream.receive_some() == b""
        gone.set()

    port = await _tls_server(nursery, certificate, silent)
    with trio.fail_after(LIMIT):
        async with adapter_to(f"https://localhost:{port}/v1") as adapter, trio.open_nursery() as asking:
            asking.start_soon(use, adapter, how, ask(), call())
            await asked.wait()
            asking.cancel_scope.cancel()
        await gone.wait()


async def test_no_other_origin() -> None:
    transport = PoolTransport(Origin("http", "127.0.0.1", 9))
    for url in ("http://127.0.0.1:10/", "https://127.0.0.1:9/", "http://localhost:9/", "http://127.0.0.1/"):
        with pytest.raises(OtherOriginError):
            await transport.handle_async_request(httpx.Request("POST", url))
    await transport.aclose()


async def test_a_request_without_a_body(fault_server: Any) -> None:
    transport = PoolTransport(Origin("http", "127.0.0.1", fault_server.port))
    with trio.fail_after(LIMIT):
        response = await transport.handle_async_request(httpx.Request("GET", f"{fault_server.base_url}/models"))
        assert response.status_code == 200
        await response.aclose()
        await transport.aclose()


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_a_proxy_of_the_environment_is_not_used(
    fault_server: Any, monkeypatch: pytest.MonkeyPatch, how: str, free_port: int
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port}")
    with trio.fail_after(LIMIT):
        async with adapter_to(fault_server.base_url) as adapter:
            await use(adapter, how, ask(), call())
    assert fault_server.counts()["completed"] == 1


@pytest.mark.parametrize("secret", ["", "two\nlines", "schlüssel"])
async def test_a_key_that_no_header_can_carry(fault_server: Any, secret: str) -> None:
    from spear.backends import Key
    from spear.secrets import Secret

    async with adapter_to(fault_server.base_url) as adapter:
        with pytest.raises(BackendError, match="the credential bad-key") as caught:
            await adapter.invoke(ask(), call(key=Key("bad-key", Secret(secret))))
    assert caught.value.failure is Failure.AUTH
    assert secret == "" or secret not in str(caught.value)
    assert fault_server.counts()["total"] == 0
