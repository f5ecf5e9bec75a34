"""Every example of the documentation is run, and prints what the page says it prints."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.docs._pages import DOCS, ROOT, blocks
from tests.docs._session import Session, agrees

RUN = (
    "index.md",
    "tutorial.md",
    "how-to/embed.md",
    "how-to/filter.md",
    "how-to/mcp-tools.md",
    "how-to/blocking.md",
    "how-to/reload.md",
    "how-to/compare-models.md",
    "how-to/replay.md",
    "how-to/write-a-guest.md",
    "how-to/test-your-program.md",
    "operations/chat.md",
    "operations/embeddings.md",
    "operations/images.md",
    "operations/speech-to-text.md",
    "operations/text-to-speech.md",
    "reference/command-line.md",
    "reference/python.md",
    "reference/errors.md",
    "explanation/media.md",
)
OTHERS = {
    "actors/tutorial.md": "tests/actors/test_docs_examples.py",
    "how-to/add-a-backend.md": "tests/spear/backends/test_third_party_kind.py",
}
"""Pages with examples that have tests of their own."""


def free_ports() -> dict[str, str]:
    """The pages' fixed port, and the one that is really used."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return {"8000": str(listener.getsockname()[1])}


@pytest.mark.parametrize("name", RUN)
def test_examples_print_what_the_page_says(name: str, tmp_path: Path) -> None:
    page = DOCS / name
    with Session(tmp_path, free_ports()) as session:
        for each in session.run(page.read_text(encoding="utf-8")):
            place = f"{name}, block at line {each.line}, {each.what}"
            assert agrees(each.shown, each.printed), f"{place}\n--- the page\n{each.shown}\n--- now\n{each.printed}"


def test_no_example_is_left_out() -> None:
    with_examples = {
        str(page.relative_to(DOCS))
        for page in DOCS.rglob("*.md")
        if any(block.language == "python" for block in blocks(page.read_text(encoding="utf-8")))
    }
    assert with_examples <= {*RUN, *OTHERS}
    assert [test for test in OTHERS.values() if not (ROOT / test).is_file()] == []


def test_readme_example(tmp_path: Path) -> None:
    ran = 0
    with Session(tmp_path) as session:
        for block in blocks((ROOT / "README.md").read_text(encoding="utf-8")):
            if block.language == "python":
                assert session.python(block) == "stub chat completion: Hello from local\n"
                ran += 1
    assert ran == 1


@pytest.mark.parametrize(
    ("shown", "printed", "agree"),
    [
        ("a 1.5 ms\n", "a 22.75 ms\n", True),
        ("a 1.5 ms\n", "b 22.75 ms\n", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nb\nc\n", False),
        ("", "something\n", False),
        ("something\n", "", False),
        ("", "", True),
    ],
)
def test_what_counts_as_the_same(shown: str, printed: str, agree: bool) -> None:
    assert agrees(shown, printed) is agree
