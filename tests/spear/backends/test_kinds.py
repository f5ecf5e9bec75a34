from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from spear._extras import MissingExtra, need
from spear.backends import KnownKind, _kinds, canonical_kind, find_kind, known_kinds
from spear.ir import Capabilities, ErrorCode, Operation, RoutingError


class ThirdParty:
    name = "third"
    capabilities = Capabilities(ops=(Operation.CHAT_COMPLETIONS,))

    def check(self, instance: Any) -> None: ...

    def open(self, instance: Any, host: Any) -> Any: ...


THIRD = ThirdParty()
NO_KIND = object()


def register(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    found = [EntryPoint(name.rstrip("_"), value, _kinds.GROUP) for name, value in points.items()]
    monkeypatch.setattr(_kinds, "entry_points", lambda group: found)


def refusal(name: str) -> str:
    with pytest.raises(RoutingError) as caught:
        find_kind(name)
    assert caught.value.code is ErrorCode.BACKEND_NOT_ENABLED
    return caught.value.error.message


BUILT_IN = sorted(_kinds._BUILTIN)
KNOWN = ", ".join(BUILT_IN)


@pytest.mark.parametrize("name", ["stub", "openai_chat_completion", "ollama_chat"])
def test_built_in(name: str) -> None:
    assert find_kind(name).name == canonical_kind(name) == name


def test_alias() -> None:
    assert find_kind("openai_chat") is find_kind("openai_chat_completion")
    assert canonical_kind("openai_chat") == "openai_chat_completion"


def test_unknown() -> None:
    assert refusal("opneai_chat") == f"kind 'opneai_chat' is unknown; did you mean 'openai_chat'? known here: {KNOWN}"
    assert refusal("abc") == f"kind 'abc' is unknown; known here: {KNOWN}"


@pytest.mark.parametrize("name", ["openai_realtime_ws"])
def test_of_a_later_version(name: str) -> None:
    message = f"kind '{name}' is not built in: this version of spear-runtime does not have it"
    assert refusal(name) == message


def test_left_out_of_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_kinds._BUILTIN, "stub", _kinds._Builtin("left_out"))
    assert refusal("stub") == (
        "kind 'stub' is not built in: this spear-runtime was built without it; "
        "build with SPEAR_BACKENDS naming left_out, or pip install spear-runtime"
    )
    assert KnownKind("stub", "built in", available=False) in known_kinds()


def test_its_dependency_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "spear.backends.stub", raising=False)
    monkeypatch.setitem(sys.modules, "trio", None)
    monkeypatch.setitem(_kinds._BUILTIN, "stub", _kinds._Builtin("stub", extra="some"))
    assert refusal("stub") == "kind 'stub': trio is not installed: pip install 'spear-runtime[some]'"


def test_what_it_needs_later_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    expected = "kind 'hashed_ngrams': numpy is not installed: pip install 'spear-runtime[local]'"
    assert refusal("hashed_ngrams") == expected


def test_third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, third=f"{__name__}:THIRD", stub=f"{__name__}:NO_KIND", openai_realtime_ws=f"{__name__}:THIRD")
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())
    assert find_kind("third") is THIRD
    assert find_kind("stub").name == "stub", "a built-in kind is not replaced"
    assert "calls itself 'third'" in refusal("openai_realtime_ws")
    assert [kind.name for kind in known_kinds() if kind.available] == sorted([*BUILT_IN, "openai_realtime_ws", "third"])


def _this_module() -> Any:
    import types

    module = types.ModuleType(__name__)
    module.THIRD, module.NO_KIND = THIRD, NO_KIND  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("no_such_module_at_all:KIND", "cannot be loaded: ModuleNotFoundError"),
        ("json:NO_SUCH_NAME", "cannot be loaded: AttributeError"),
        ("json:dumps", "is no spear.backends.Kind: json:dumps has no name, capabilities, check, open"),
    ],
)
def test_third_party_that_is_broken(monkeypatch: pytest.MonkeyPatch, value: str, says: str) -> None:
    register(monkeypatch, third=value)
    assert says in refusal("third")


def test_registered_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, third="a:KIND", third_="b:KIND")
    assert refusal("third") == "kind 'third' is registered more than once, by a:KIND, b:KIND; uninstall all but one"


def test_need() -> None:
    assert need("json", "any") is sys.modules["json"]
    with pytest.raises(MissingExtra, match=r"pip install 'spear-runtime\[onnx\]'"):
        need("no_such_module_at_all", "onnx")


UNUSED = (
    "httpx",
    "httpcore2",
    "wasmtime",
    "spear.backends.openai",
    "trio_websocket",
    "numpy",
    "PIL",
    "pocketsphinx",
    "_pocketsphinx",
    "torch",
    "sentence_transformers",
)
PROGRAMS = {
    "import": "import spear, spear.backends, spear.ir",
    "look-up of the stub": "from spear.backends import find_kind, known_kinds; find_kind('stub'); known_kinds()",
    "look-up of those that compute here": """
from spear.backends import find_kind

for name in ("hashed_ngrams", "prompt_card", "espeak", "pocketsphinx"):
    find_kind(name)
""",
    "a runtime of stubs": """
import trio, spear

async def main():
    config = {"spear": {"backends": [{"name": n, "kind": "stub", "hosting": "local"} for n in "ab"]}}
    async with spear.open_runtime(config) as runtime:
        reply = await runtime.chat("", messages=[{"role": "user", "content": "hi"}])
        assert reply.text == "stub chat completion: hi"

trio.run(main)
""",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_what_is_not_used_is_not_imported(program: str) -> None:
    check = f"\nimport sys; print(sorted(name for name in {UNUSED} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program + check], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_looking_up_the_http_kind_does_import_it() -> None:
    """So that the test above could fail."""
    program = (
        "import sys; from spear.backends import find_kind; find_kind('openai_chat'); print('httpx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "True", done.stderr
