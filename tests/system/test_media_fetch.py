"""What lies elsewhere, over real sockets: the egress policy holds whatever a URL, a name or a server does."""

from __future__ import annotations

import ssl
import subprocess
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import spear
from spear.config import MediaConfig, load_config
from spear.ir import CallerError, ConfigError, ErrorCode, UrlMedia
from spear.media import MediaStore, _fetch
from spear.media._fetch import Fetcher
from spear.media._policy import place_of, policy_of
from tests.system.kit import config, nothing_left, stub, until_true

PNG = b"\x89PNG\r\n\x1a\n and the rest"
FOREVER = object()


@dataclass
class Server:
    """Answers by path, raw. Counts connections, and those that are open."""

    port: int = 0
    paths: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)
    connections: int = 0
    open: int = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, stream) -> None:
        self.connections += 1
        self.open += 1
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                head = b""
                while b"\r\n\r\n" not in head:
                    part = await stream.receive_some()
                    if not part:
                        return
                    head += part
                self.asked.append(head.decode())
                await self.answer(stream, head.split(b" ")[1].decode())
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def answer(self, stream, path: str) -> None:
        for piece in self.paths.get(path, (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",)):
            if piece is FOREVER:
                while not await self.left(stream):
                    await trio.sleep_forever()
            elif isinstance(piece, float):
                await trio.sleep(piece)
            else:
                await stream.send_all(piece)

    async def left(self, stream) -> bool:
        return await stream.receive_some() == b""


def ok(body: bytes = PNG, mime: str = "image/png", *more: str) -> tuple:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {mime}", f"Content-Length: {len(body)}", *more]
    return ("\r\n".join(lines).encode() + b"\r\n\r\n" + body,)


def to(location: str, status: int = 302) -> tuple:
    return (f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode(),)


@pytest.fixture
async def server(nursery):
    made = Server()
    listeners = await nursery.start(trio.serve_tcp, made.handle, 0)
    made.port = listeners[0].socket.getsockname()[1]
    return made


def fetcher(*, private=(), public=(), resolve=None, timeout=10.0, idle=5.0, plaintext=True):
    settings = MediaConfig(
        allow_origins=tuple(public),
        allow_private_origins=tuple(private),
        fetch_timeout_s=timeout,
        fetch_idle_s=idle,
        allow_plaintext=plaintext,
    )
    policy = policy_of(settings)
    return Fetcher(policy) if resolve is None else Fetcher(policy, resolve=resolve)


async def fetch(of, url, mime="image/png", limit=1_000_000):
    with trio.fail_after(5):
        return await of.fetch(url, mime=mime, limit=limit)


@asynccontextmanager
async def refused(code, says="."):
    with pytest.raises(CallerError, match=says) as raised:
        yield
    assert raised.value.code is code
    assert "127.0.0.1" not in str(raised.value)


NOT_ALLOWED, NOT_FOUND, TOO_LARGE = ErrorCode.MEDIA_NOT_ALLOWED, ErrorCode.MEDIA_NOT_FOUND, ErrorCode.MEDIA_TOO_LARGE


async def test_what_is_allowed_comes(server):
    server.paths["/a.png?x=1&y=%20"] = ok(PNG, "Image/PNG; charset=binary")
    of = fetcher(private=[server.origin])
    async with nothing_left():
        found = await fetch(of, server.origin + "/a.png?x=1&y=%20#part")
    assert (found.data, found.mime) == (PNG, "image/png")
    (head,) = server.asked
    names = {line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line}
    assert names == {"host", "user-agent", "accept", "accept-encoding", "connection"}
    await until_true(lambda: server.open == 0)


async def test_chunked_and_without_a_path(server):
    server.paths["/"] = (
        b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3\r\nabc\r\n",
        b"2\r\nde\r\n0\r\n\r\n",
    )
    assert (await fetch(fetcher(private=[server.origin]), server.origin, "audio/x-wav")).data == b"abcde"


async def test_from_a_runtime(server):
    server.paths["/a.png"] = ok()
    ref = UrlMedia(url=server.origin + "/a.png", mime="image/png")
    async with spear.open_runtime(config(stub(), media={"allow_private_origins": [server.origin]})) as runtime:
        assert (await runtime.media.load(ref, task_id="a")).data == PNG
        async with runtime.media.read(ref, task_id="a") as reading:
            assert (reading.size, await reading.read(100)) == (len(PNG), PNG)
        async with refused(TOO_LARGE):
            await runtime.media.load(ref, task_id="a", max_bytes=3)
    async with spear.open_runtime(config(stub())) as runtime, refused(NOT_ALLOWED, "nothing is fetched from"):
        await runtime.media.load(ref, task_id="a")


# --- where to


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{other}/a.png",
        "https://127.0.0.1:{port}/a.png",
        "http://localhost:{port}/a.png",
        "http://127.1:{port}/a.png",
        "http://2130706433:{port}/a.png",
        "http://user@127.0.0.1:{port}/a.png",
        "http://127.0.0.1:{port}@example.com/a.png",
        "http://127.0.0.1:{port}\\@example.com/a.png",
        "http://[::ffff:127.0.0.1]:{port}/a.png",
        "http://127.0.0.1:{port}/ä.png",
        "http://127.0.0.1:{port}/a b.png",
        "http://127.0.0.1:{port}/a\r\nHost: x",
        "http://127.0.0.1:99999/a.png",
        "ftp://127.0.0.1:{port}/a.png",
        "http://",
    ],
)
async def test_other_origins_and_odd_urls(server, url):
    server.paths["/a.png"] = ok()
    async with refused(NOT_ALLOWED):
        await fetch(fetcher(private=[server.origin]), url.format(port=server.port, other=server.port + 1))
    assert server.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["fd00::1"],
        ["93.184.216.34", "127.0.0.1"],
        ["0.0.0.0"],
    ],
)
async def test_private_addresses(server, addresses):
    async def resolve(host, port):
        await trio.lowlevel.checkpoint()
        return addresses

    async with refused(NOT_ALLOWED, "not public"):
        await fetch(
            fetcher(public=[f"http://media.example:{server.port}"], resolve=resolve),
            f"http://media.example:{server.port}/a.png",
        )
    assert server.connections == 0


async def test_private_addresses_written_as_such(server):
    async with refused(NOT_ALLOWED, "not public"):
        await fetch(fetcher(public=[server.origin]), server.origin + "/a.png")
    async with refused(NOT_ALLOWED, "not public"):
        name = f"http://localhost:{server.port}"
        await fetch(fetcher(public=[name]), name + "/a.png")
    assert server.connections == 0


async def test_an_answer_that_changes_is_asked_once(server, monkeypatch):
    """Checked and then connected to is one and the same address, however the name is answered the next time."""
    server.paths["/a.png"] = ok()
    answers = [["93.184.216.34"], ["127.0.0.1"]]
    asked, connected = [], []

    async def resolve(host, port):
        await trio.lowlevel.checkpoint()
        asked.append(host)
        return answers[len(asked) - 1]

    real = _fetch.connect

    async def connect(host, port):
        connected.append(host)
        return await real("127.0.0.1", port)

    monkeypatch.setattr(_fetch, "connect", connect)
    name = f"http://media.example:{server.port}"
    of = fetcher(public=[name], resolve=resolve)
    assert (await fetch(of, name + "/a.png")).data == PNG
    assert (asked, connected) == (["media.example"], ["93.184.216.34"])
    assert f"Host: media.example:{server.port}\r\n" in server.asked[0]
    async with refused(NOT_ALLOWED, "not public"):
        await fetch(of, name + "/a.png")
    assert len(connected) == 1


async def test_the_next_address_where_one_does_not_answer(server):
    server.paths["/a.png"] = ok()

    async def resolve(host, port):
        await trio.lowlevel.checkpoint()
        return ["127.0.0.99", "127.0.0.1"]

    name = f"http://media.example:{server.port}"
    listening = await trio.open_tcp_listeners(0, host="127.0.0.99")
    await listening[0].aclose()  # there is such an address, and nobody at this port
    server_only = fetcher(private=[name], resolve=resolve)
    found = await fetch(server_only, name + "/a.png")
    assert found.data == PNG


async def test_names_without_an_answer(server):
    async def nothing(host, port):
        await trio.lowlevel.checkpoint()
        return []

    async def failing(host, port):
        await trio.lowlevel.checkpoint()
        raise OSError(-2, "Name or service not known")

    for resolve in (nothing, failing):
        async with refused(NOT_FOUND, "host name"):
            await fetch(fetcher(public=["http://media.example"], resolve=resolve), "http://media.example/a.png")


# --- redirects


async def test_redirects_within_the_list(server):
    server.paths |= {"/1": to("/2"), "/2": to("3?x", 307), "/3?x": to(f"{server.origin}/4", 308), "/4": ok()}
    assert (await fetch(fetcher(private=[server.origin]), server.origin + "/1")).data == PNG
    await until_true(lambda: server.open == 0)


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://127.0.0.1:1/a.png", NOT_ALLOWED),
        ("http://169.254.169.254/latest/meta-data", NOT_ALLOWED),
        ("//example.com/a.png", NOT_ALLOWED),
        ("file:///etc/passwd", NOT_ALLOWED),
        ("gopher://x", NOT_ALLOWED),
        ("http://[", NOT_ALLOWED),
        ("/again", NOT_FOUND),
        ("", NOT_FOUND),
    ],
)
async def test_redirects_out_of_it_and_round_about(server, location, code):
    server.paths |= {"/a.png": to(location), "/again": to("/again")}
    async with refused(code):
        await fetch(fetcher(private=[server.origin]), server.origin + "/a.png")
    assert server.connections <= _fetch.REDIRECTS + 1


async def test_a_redirect_from_a_public_origin_to_a_private_address(server, monkeypatch):
    """Another name of the list, whose address is checked anew."""
    server.paths["/a.png"] = to(f"http://inside.example:{server.port}/secret.png")
    server.paths["/secret.png"] = ok()
    addresses = {"media.example": ["93.184.216.34"], "inside.example": ["127.0.0.1"]}

    async def resolve(host, port):
        await trio.lowlevel.checkpoint()
        return addresses[host]

    real = _fetch.connect

    async def connect(host, port):
        return await real("127.0.0.1", port)

    monkeypatch.setattr(_fetch, "connect", connect)
    names = [f"http://{name}:{server.port}" for name in addresses]
    async with refused(NOT_ALLOWED, "not public"):
        await fetch(fetcher(public=names, resolve=resolve), names[0] + "/a.png")
    assert server.connections == 1


# --- what comes back


@pytest.mark.parametrize(
    ("mime", "expected", "allowed"),
    [
        ("image/jpeg", "image/png", True),
        ("audio/mpeg", "audio/wav", True),
        ("text/html", "image/png", False),
        ("audio/wav", "image/png", False),
        ("application/octet-stream", "image/png", False),
        ("image", "image/png", False),
        ("", "image/png", False),
        ('image/p ng,"x', "image/png", False),
        ("image/\x7fé", "image/png", False),
        ("image/" + "a" * 5000, "image/png", False),
        ("image/png", None, True),
        ("text/html", None, False),
        ("application/json", "application/json; charset=utf-8", True),
        ("application/json", "application/pdf", False),
    ],
)
async def test_types(server, mime, expected, allowed):
    server.paths["/a"] = ok(PNG, mime)
    of = fetcher(private=[server.origin])
    if allowed:
        assert (await fetch(of, server.origin + "/a", expected)).mime == mime
    else:
        async with refused(NOT_ALLOWED, "type"):
            await fetch(of, server.origin + "/a", expected)
    await until_true(lambda: server.open == 0)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (ok(b"x" * 1001), TOO_LARGE, "has 1001 bytes; at most 1000"),
        ((HEAD + b"Content-Length: 99999999999\r\n\r\n", FOREVER), TOO_LARGE, "at most 1000"),
        ((HEAD + b"\r\n", *[b"x" * 300] * 10, FOREVER), TOO_LARGE, "more than 1000"),
        (
            (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"200\r\n" + b"x" * 512 + b"\r\n"] * 5),
            TOO_LARGE,
            "more than",
        ),
        (ok(b"x" * 10, "image/png", "Content-Encoding: gzip"), NOT_ALLOWED, "compressed"),
        ((HEAD + b"Content-Length: 10\r\n\r\nhalf",), NOT_FOUND, "connection broke"),
        ((b"SSH-2.0-OpenSSH\r\n",), NOT_FOUND, "not valid HTTP"),
        ((b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 30_000 + b"\r\n",), NOT_FOUND, "not valid HTTP"),
        ((), NOT_FOUND, "connection broke"),
        ((b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",), NOT_FOUND, "nothing at the URL"),
        ((b"HTTP/1.1 500 Oh\r\nContent-Length: 99999\r\n\r\nsecret", FOREVER), NOT_FOUND, "status 500"),
        ((b"HTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\nx",), NOT_FOUND, "status 206"),
        ((b"HTTP/1.1 302 Found\r\n\r\n", FOREVER), NOT_FOUND, "redirected more than"),
    ],
)
async def test_answers_that_cannot_be_used(server, answer, code, says):
    server.paths["/a.png"] = answer
    async with nothing_left():
        async with refused(code, says) as _:
            await fetch(fetcher(private=[server.origin]), server.origin + "/a.png", limit=1000)
        await until_true(lambda: server.open == 0)


@pytest.mark.parametrize(
    "answer",
    [
        (FOREVER,),
        (HEAD, FOREVER),
        (HEAD + b"Content-Length: 100\r\n\r\nhalf", FOREVER),
    ],
)
async def test_silence(server, answer):
    server.paths["/a.png"] = answer
    async with refused(NOT_FOUND, r"nothing came within 0\.1 s"):
        await fetch(fetcher(private=[server.origin], idle=0.1), server.origin + "/a.png")
    await until_true(lambda: server.open == 0)


async def test_a_drip(server):
    """Never silent for long, and never done."""
    server.paths["/a.png"] = (HEAD + b"Content-Length: 1000\r\n\r\n", *[b"x", 0.02] * 1000)
    async with refused(NOT_FOUND, r"longer than 0\.2 s"):
        await fetch(fetcher(private=[server.origin], timeout=0.2, idle=0.1), server.origin + "/a.png")
    await until_true(lambda: server.open == 0)


async def test_nobody_there(server):
    async with refused(NOT_FOUND, "connection refused"):
        await fetch(fetcher(private=["http://127.0.0.1:1"]), "http://127.0.0.1:1/a.png")


@pytest.mark.parametrize("answer", [(FOREVER,), (HEAD + b"Content-Length: 100\r\n\r\nhalf", FOREVER)])
async def test_a_client_that_leaves_closes_the_socket(server, answer):
    server.paths["/a.png"] = answer
    async with nothing_left(), trio.open_nursery() as inner:
        for _ in range(5):
            inner.start_soon(fetch, fetcher(private=[server.origin]), server.origin + "/a.png")
        await until_true(lambda: server.open == 5)
        inner.cancel_scope.cancel()
    await until_true(lambda: server.open == 0)


async def test_only_so_many_at_a_time(server):
    server.paths["/a.png"] = (0.05, *ok())
    of = fetcher(private=[server.origin])
    most = 0
    async with trio.open_nursery() as inner:
        for _ in range(3 * _fetch.FETCHES):
            inner.start_soon(fetch, of, server.origin + "/a.png")
        await until_true(lambda: server.open > 0)
        while server.open:
            most = max(most, server.open)
            await trio.sleep(0.005)
    assert server.connections == 3 * _fetch.FETCHES
    assert most <= _fetch.FETCHES + 4, "a connection that is closed here may still be seen open there"


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Of `media.example`, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=media.example"]
    name = ["-addext", "subjectAltName=DNS:media.example", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run([*request, *name, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


@pytest.mark.parametrize(
    ("name", "known", "says"),
    [("media.example", True, ""), ("other.example", True, "certificate"), ("media.example", False, "certificate")],
)
async def test_the_certificate_is_that_of_the_name(nursery, certificate, monkeypatch, name, known, says):
    made = Server(paths={"/a.png": ok()})
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def handle(stream):
        with suppress(trio.BrokenResourceError):
            await stream.do_handshake()
            await made.handle(stream)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    tls = [trio.SSLListener(each, context, https_compatible=True) for each in listeners]
    nursery.start_soon(trio.serve_listeners, handle, tls)
    origin = f"https://{name}:{listeners[0].socket.getsockname()[1]}"
    trusted = ssl.create_default_context(cafile=str(certificate)) if known else ssl.create_default_context()
    monkeypatch.setattr(_fetch, "shared_ssl_context", lambda: trusted)

    async def resolve(host, port):
        await trio.lowlevel.checkpoint()
        return ["127.0.0.1"]

    of = fetcher(private=[origin], resolve=resolve)
    if says:
        async with refused(NOT_FOUND, says):
            await fetch(of, origin + "/a.png")
    else:
        assert (await fetch(of, origin + "/a.png")).data == PNG


# --- configuration, and URLs of all kinds


@pytest.mark.parametrize(
    ("media", "says"),
    [
        ({"allow_origins": ["http://example.com"]}, "plain http:// needs allow_plaintext"),
        ({"allow_origins": ["https://example.com/path"]}, "is no origin"),
        ({"allow_origins": ["https://user@example.com"]}, "is no origin"),
        ({"allow_origins": ["*"]}, "is no origin"),
        ({"allow_origins": "https://example.com"}, "expected a list"),
        ({"allow_private_origins": [3]}, "expected a string"),
        ({"fetch_idle_s": "soon"}, "expected more than 0"),
    ],
)
def test_what_is_wrong_in_a_configuration(media, says):
    with pytest.raises(ConfigError, match=says):
        load_config(config(stub(), media=media))


def test_what_is_right_in_one():
    media = {"allow_origins": ["https://example.com", "http://plain.example:8080"], "allow_plaintext": True}
    assert load_config(config(stub(), media=media)).media.allow_origins == tuple(media["allow_origins"])


async def test_an_origin_with_an_impossible_port():
    with pytest.raises(ConfigError, match=r"allow_origins.*99999.*port"):
        async with spear.open_runtime(config(stub(), media={"allow_origins": ["https://example.com:99999"]})):
            pass


POLICY = policy_of(MediaConfig(allow_origins=("https://example.com",)))


@settings(max_examples=50)
@given(
    st.text(alphabet="htps:/.@\\#?[]%examplco 0127\t\nä", max_size=40)
    | st.tuples(st.text(alphabet="@\\/:#?.%\n ", max_size=4), st.text(max_size=10)).map(
        lambda odd: f"https://example.com{odd[0]}{odd[1]}"
    )
)
def test_no_url_leads_elsewhere(url):
    with suppress(CallerError):
        place = place_of(url, POLICY)
        assert (place.origin.scheme, place.origin.host, place.origin.port) == ("https", "example.com", 443)
        assert place.target.startswith("/")
        assert place.target.isascii()
        assert place.target.isprintable()
        assert " " not in place.target


def test_a_store_needs_no_client_before_the_first_fetch():
    assert MediaStore()._fetcher is None
