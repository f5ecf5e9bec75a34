"""The examples of docs/actors run, and print what their docstrings say; the pages show files that exist."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "actors"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_the_example_prints_what_it_says(example):
    said = ast.get_docstring(ast.parse(example.read_text()))
    assert said is not None
    expected = textwrap.dedent(said.partition("Prints:\n")[2])
    environment = os.environ | {"PYTHONPATH": str(DOCS.parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert (done.stdout.strip(), done.stderr) == (expected.strip(), "")


def test_code_in_the_pages_is_taken_from_the_examples():
    sources = "\n".join(p.read_text() for p in EXAMPLES)
    flat = re.sub(r"\s+", " ", sources)
    pages = sorted(DOCS.glob("*.md"))
    assert pages
    for page in pages:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            for chunk in block.split("...\n"):
                assert re.sub(r"\s+", " ", chunk).strip() in flat, f"{page.name}: in no example:\n{chunk}"


def test_every_public_name_is_in_the_reference():
    import actors
    import actors.testing

    text = (DOCS / "reference.md").read_text()
    missing = [name for name in (*actors.__all__, *actors.testing.__all__) if f"`{name}" not in text]
    assert missing == []
