"""Without a configuration: what cannot work here is left out, and said."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import spear
from spear.cli._starter import starter_text
from spear.config import default_config, load_config
from spear.ir import ConfigError, Operation
from spear.router import build_generation

ALL = ["stub", "hashed_ngrams", "prompt_card", "espeak", "pocketsphinx"]


def test_a_missing_program_and_a_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "PIL", None)
    generation = build_generation(default_config())
    assert [each.name for each in generation.instances] == ["stub", "hashed_ngrams", "pocketsphinx"]
    found = {each.name: (each.reason, each.detail) for each in generation.skipped}
    assert set(found) == {"espeak", "prompt_card"}
    assert found["espeak"][0] == "cannot_work"
    assert "apt-get install espeak-ng" in found["espeak"][1]
    assert found["prompt_card"][0] == "not_enabled"
    assert "pip install 'spear-runtime[local]'" in found["prompt_card"][1]


def test_what_a_configuration_names_is_not_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = load_config({"spear": {"backends": [{"name": "a", "kind": "espeak", "hosting": "local"}]}}, environ={})
    with pytest.raises(ConfigError, match="espeak-ng is not installed"):
        build_generation(config)


async def test_every_operation_answers(tmp_path: Path) -> None:
    async with spear.open_runtime() as runtime:
        assert {row["name"]: row["state"] for row in runtime.backends()} == dict.fromkeys(ALL, "running")
        vectors = (await runtime.embed(["one fox", "one foxes"])).vectors
        assert [len(vector) for vector in vectors] == [256, 256]
        (picture,) = await (await runtime.image("a red house", size="64x64")).load()
        assert picture.startswith(b"\x89PNG")
        speech = await runtime.speak("one two three four five", voice="en-us+klatt2", speed=0.71)
        assert (await speech.load())[:4] == b"RIFF"
        assert "three four five" in (await runtime.transcribe(speech.audio)).text


PROGRAM = """
import sys, trio, spear

async def main():
    async with spear.open_runtime() as runtime:
        reply = await runtime.chat("", messages=[{"role": "user", "content": "hi"}])
        assert reply.text == "stub chat completion: hi"

trio.run(main)
print(sorted({"numpy", "PIL", "pocketsphinx", "httpx"} & set(sys.modules)))
"""


def test_what_is_not_asked_for_is_not_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_its_operations() -> None:
    operations = {op for each in build_generation(default_config()).instances for op in each.capabilities.ops}
    assert operations == set(Operation) - {Operation.REALTIME_VOICE}


def test_the_first_file_has_off_what_cannot_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def names(text: str) -> list[str]:
        config = load_config(tomllib.loads(text), environ={})
        return [each.name for each in build_generation(config).instances]

    assert names(starter_text()) == ALL
    monkeypatch.setenv("PATH", str(tmp_path))
    assert names(starter_text()) == [each for each in ALL if each != "espeak"]
    assert "# Off, since espeak-ng is not installed" in starter_text()
