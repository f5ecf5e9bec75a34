"""Wheels built with `SPEAR_BACKENDS`, each in an environment of its own that has what it declares and nothing else."""

from __future__ import annotations

import os
import subprocess
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from .test_chosen_backends import build

requirements = pytest.importorskip("packaging.requirements", reason="hatchling brings it: pip install hatchling")


def needed(lines: list[str], extras: set[str], found: set[str]) -> set[str]:
    """The distributions that these requirements lead to, as far as they apply here."""
    for line in lines:
        wanted = requirements.Requirement(line)
        if wanted.marker and not any(wanted.marker.evaluate({"extra": each}) for each in extras | {""}):
            continue
        if wanted.name not in found:
            found.add(wanted.name)
            needed(metadata.distribution(wanted.name).requires or [], set(wanted.extras), found)
    return found


class Environment:
    """The interpreter of a virtual environment with one wheel, and links to what that declares, from the environment
    of these tests: what pip would have installed, without a network."""

    def __init__(self, folder: Path, chosen: str, extras: set[str]) -> None:
        done = build(folder / "dist", chosen)
        assert done.returncode == 0, done.stderr
        venv.create(folder / "env", with_pip=False, symlinks=True)
        (self.site,) = (folder / "env").glob("lib/python*/site-packages")
        (path,) = (folder / "dist").glob("*.whl")
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(self.site)
        (about,) = self.site.glob("*.dist-info")
        self.names = needed(metadata.Distribution.at(about).requires or [], extras, set())
        for name in self.names:
            self._link(metadata.distribution(name))
        self.python = folder / "env" / "bin" / "python"
        self.folder = folder

    def _link(self, found: metadata.Distribution) -> None:
        for file in found.files or ():
            top = file.parts[0]
            if top not in {"..", "__pycache__"} and not (self.site / top).exists():
                (self.site / top).symlink_to(Path(str(found.locate_file(top))))

    def run(self, *arguments: str, config: str = "", path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
        (self.folder / "work").mkdir(exist_ok=True)
        file = self.folder / "work" / "spear.toml"
        file.unlink(missing_ok=True)
        if config:
            file.write_text(config, encoding="utf-8")
        command = [str(self.python), "-m", "spear.cli", *arguments]
        return subprocess.run(
            command,
            cwd=file.parent,
            env={"PATH": path, "HOME": "/"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def test_nothing_but_the_stub(tmp_path: Path) -> None:
    environment = Environment(tmp_path, "stub", set())
    assert "trio" in environment.names
    assert not {"httpx", "httpcore2", "numpy"} & environment.names
    answered = environment.run("chat", "hello")
    assert (answered.returncode, answered.stdout) == (0, "stub chat completion: hello\n"), answered.stderr
    checked = environment.run("config", "check")
    assert checked.returncode == 0, checked.stderr
    for kind in ("hashed_ngrams", "prompt_card", "espeak", "pocketsphinx"):
        assert f"kind '{kind}' is not built in: this spear-runtime was built without it" in checked.stdout
    refused = environment.run(
        "chat",
        "hello",
        config='[[spear.backends]]\nname = "a"\nkind = "openai_chat"\nhosting = "remote"\nbase_url = "https://x.test/v1"\n',
    )
    assert refused.returncode == 2
    assert "spear.toml:3: " in refused.stderr
    assert "build with SPEAR_BACKENDS naming openai, or pip install spear-runtime" in refused.stderr
    assert "Traceback" not in refused.stderr
    filtered = environment.run(
        "chat",
        "hello",
        config="""
[[spear.backends]]
name = "a"
kind = "stub"
hosting = "local"
[[spear.filters]]
name = "f"
kind = "http"
url = "https://x.test/"
[[spear.routes]]
filter = "f"
""",
    )
    assert filtered.returncode == 2
    assert "needs an HTTP client: httpx is not installed: pip install spear-runtime" in filtered.stderr
    assert "Traceback" not in filtered.stderr
    for program in ("import httpx", "import numpy", "import pytest"):
        assert subprocess.run([environment.python, "-c", program], capture_output=True, check=False).returncode != 0


def test_two_that_compute_here(tmp_path: Path) -> None:
    """`numpy` comes with the extra `local`, and Pillow does not, since what needs it was left out."""
    environment = Environment(tmp_path, "hashed_ngrams,espeak", {"local"})
    assert "numpy" in environment.names
    assert not {"httpx", "pillow", "pocketsphinx"} & environment.names
    embedded = environment.run("embed", "one fox", path=os.environ["PATH"])
    assert embedded.returncode == 0, embedded.stderr
    refused = environment.run("chat", "hello")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


def test_over_http_alone(tmp_path: Path) -> None:
    environment = Environment(tmp_path, "ollama", set())
    assert {"httpx", "httpcore2"} <= environment.names
    unreachable = """
[[spear.backends]]
name = "a"
kind = "ollama"
hosting = "local"
base_url = "http://127.0.0.1:9"
model = "m"
"""
    refused = environment.run("chat", "hello", config=unreachable)
    assert refused.returncode == 1
    assert "backend_unavailable" in refused.stderr
    stub = environment.run(
        "config", "check", config='[[spear.backends]]\nname = "a"\nkind = "stub"\nhosting = "local"\n'
    )
    assert stub.returncode == 2
    assert "build with SPEAR_BACKENDS naming stub" in stub.stderr
