"""The chapter of the demo with sound and picture, on the real parts."""

from __future__ import annotations

import io
import shutil
import sys
import wave
from pathlib import Path

import pytest

from spear.cli._demo import Stage
from spear.cli._demo_media import media


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: apt-get install it")
async def test_it_leaves_real_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    await media(Stage(), tmp_path / "kept")
    said = capsys.readouterr().out
    for label in ("said", "heard", "answered", "drawn", "nearness"):
        assert f"\n    {label} " in said
    assert "over the city" in said.split("heard", 1)[1]
    with wave.open(str(tmp_path / "kept" / "said.wav")) as sound:
        assert sound.getnframes() > sound.getframerate()
    with Image.open(io.BytesIO((tmp_path / "kept" / "drawn.png").read_bytes())) as picture:
        assert picture.size == (640, 360)


async def test_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "PIL", None)
    await media(Stage(), None)
    said = capsys.readouterr().out
    assert "espeak: espeak-ng is not installed" in said
    assert "prompt_card: kind 'prompt_card': PIL is not installed: pip install 'spear-runtime[local]'" in said
    assert "heard" not in said
