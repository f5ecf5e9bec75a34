"""The kind that docs/how-to/add-a-backend.md writes, installed as a package is, used through the whole of Spear."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from spear.backends import Finished, Host
from spear.ir import BackendError, ChatResult, ContentDelta, ErrorCode, Failure, Started
from tests.docs._pages import DOCS, Block, blocks
from tests.spear.backends._support import ask, call, instance, use

PAGE = [*blocks((DOCS / "how-to" / "add-a-backend.md").read_text(encoding="utf-8"))]
FILES = {block.title: block.content for block in PAGE if block.title}
PRINTED = next(block for block in PAGE if block.language == "text").content


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """What pip makes of the package: its modules, and its metadata beside them."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    metadata = tmp_path / "line_chat-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in project["entry-points"]["spear.backends"].items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[spear.backends]", *lines, ""]))
    return tmp_path


def run(installed: Path, *command: str) -> str:
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); "
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program + command[0], *command[1:]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=installed,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_tells_the_truth(installed: Path) -> None:
    assert run(installed, "import runpy; runpy.run_path('try_it.py')") == PRINTED


def test_it_is_known_and_not_imported(installed: Path) -> None:
    program = (
        "from spear.backends import known_kinds;"
        "print([(k.name, k.source) for k in known_kinds() if k.name == 'line_chat'], 'line_chat' in sys.modules)"
    )
    assert run(installed, program) == "[('line_chat', 'line-chat')] False\n"


@pytest.fixture
def line_chat(installed: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("line_chat", installed / "line_chat.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def serve(nursery: trio.Nursery, behave: Callable[[trio.SocketStream], Any]) -> dict[str, Any]:
    async def handler(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await behave(stream)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, handler, [listener])
    return {"host": "127.0.0.1", "port": listener.socket.getsockname()[1]}


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize(
    ("sent", "code", "failure"),
    [
        (b"", ErrorCode.STREAM_TRUNCATED, Failure.SERVER),
        (b"half a line", ErrorCode.STREAM_TRUNCATED, Failure.SERVER),
        (b"x" * 100_000, ErrorCode.BACKEND_ERROR, Failure.SERVER),
        (None, ErrorCode.TIMEOUT, Failure.SERVER),
    ],
)
async def test_faults(
    line_chat: ModuleType, nursery: trio.Nursery, how: str, sent: bytes | None, code: ErrorCode, failure: Failure
) -> None:
    closed = trio.Event()

    async def behave(stream: trio.SocketStream) -> None:
        if sent is not None:
            await stream.send_all(sent)
            return
        assert await stream.receive_some() == b""
        closed.set()

    options = await serve(nursery, behave)
    with trio.fail_after(10):
        async with line_chat.KIND.open(instance(options=options), Host()) as adapter:
            with pytest.raises(BackendError) as caught:
                await use(adapter, how, ask(), call(first_event=0.2))
        if sent is None:
            await closed.wait()
    assert (caught.value.code, caught.value.failure) == (code, failure)
    assert "127.0.0.1" not in str(caught.value)


async def test_refused(line_chat: ModuleType) -> None:
    async with line_chat.KIND.open(instance(options={"host": "127.0.0.1", "port": 1}), Host()) as adapter:
        with pytest.raises(BackendError) as caught:
            await use(adapter, "plain", ask(), call())
    assert (caught.value.code, caught.value.failure) == (ErrorCode.BACKEND_UNAVAILABLE, Failure.CONNECT)


async def test_a_stream(line_chat: ModuleType, nursery: trio.Nursery) -> None:
    async def behave(stream: trio.SocketStream) -> None:
        for piece in (b"one ", b"two\nrest"):
            await stream.send_all(piece)
            await trio.sleep(0.05)

    options = await serve(nursery, behave)
    with trio.fail_after(10):
        async with line_chat.KIND.open(instance(options=options), Host()) as adapter:
            items = await use(adapter, "stream", ask(), call())
    assert [type(item) for item in items] == [Started, ContentDelta, ContentDelta, Finished]
    assert isinstance(items[-1], Finished)
    assert isinstance(items[-1].answer.payload, ChatResult)
    assert items[-1].answer.payload.text == "one two"


@pytest.mark.parametrize(
    "options",
    [{}, {"host": "a"}, {"host": "a", "port": 0}, {"host": 1, "port": 1}, {"host": "a", "port": 1, "prot": 2}],
)
def test_check(line_chat: ModuleType, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^options\.\w+: "):
        line_chat.KIND.check(instance(options=options))


def test_the_page_has_no_more_programs() -> None:
    """Each code block of the page is a file that is tested here, an install command, or what is printed."""
    others: list[Block] = [block for block in PAGE if not block.title]
    assert [block.language for block in others] == ["sh", "text"]
