"""The documentation as data: its pages, their fenced blocks, headings and links. No page is run here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"

_FENCE: Final = re.compile(r"^( *)(`{3,})[ ]?([a-z]*)(?:[ ]+title=\"([^\"]+)\")?[ ]*\n(.*?)^\1\2[ ]*$", re.M | re.S)
_LINK: Final = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_CODE_SPAN: Final = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.S)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `line` is that of its first line of content, counted from 1; `start` and `end` are its content's
    place in the page."""

    language: str
    title: str | None
    content: str
    line: int
    start: int
    end: int


def pages() -> list[Path]:
    """README.md and everything below docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start(5)) + 1
        yield Block(match[3], match[4], match[5], line, match.start(5), match.end(5))


def prose(text: str) -> str:
    """The page without its fenced blocks and code spans."""
    return _CODE_SPAN.sub("`…`", _FENCE.sub("", text))


def links(text: str) -> list[str]:
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The ids that the headings of a page get."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", _FENCE.sub("", text), re.M):
        explicit = re.search(r"\{#([\w-]+)\}$", heading)
        slug = explicit[1] if explicit else slugify(heading)
        number, unique = 1, slug
        while unique in found:
            unique, number = f"{slug}_{number}", number + 1
        found.add(unique)
    return found


def slugify(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def section(text: str, heading: str) -> str:
    """What stands under `heading` (with its #s), up to the next heading of that level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    match = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.M | re.S)
    assert match is not None, f"no section {heading!r}"
    return match[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows in `text`, without the heads; code marks are taken off the first cell."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("|"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            found.append(cells)
    return [row for index, row in enumerate(found) if not _is_head(found, index)]


def _is_head(found: list[list[str]], index: int) -> bool:
    rule = re.compile(r":?-+:?")
    is_rule = all(rule.fullmatch(cell) for cell in found[index])
    before_rule = index + 1 < len(found) and all(rule.fullmatch(cell) for cell in found[index + 1])
    return is_rule or before_rule
