"""Every link of the documentation leads somewhere, and every page can be reached."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import pytest

from spear.config import load_config
from tests.docs._pages import DOCS, ROOT, anchors, blocks, links, pages

PAGES: Final = {page: page.read_text(encoding="utf-8") for page in pages()}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def problem(page: Path, link: str) -> str:
    """What is wrong with a link; empty if nothing is. Addresses of the web are not visited."""
    if re.match(r"(https?|mailto):", link):
        return ""
    path, _, anchor = link.partition("#")
    target = Path(os.path.normpath(page.parent / path)) if path else page
    if not target.exists():
        return "there is no such file"
    if page.is_relative_to(DOCS) and not target.is_relative_to(DOCS):
        return "is outside of docs/, and so of the site"
    if anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
        return f"{name(target)} has no heading #{anchor}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert {link: what for link in links(PAGES[page]) if (what := problem(page, link))} == {}


def test_the_navigation_has_every_page_once() -> None:
    listed = re.findall(r"([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS))


def test_the_list_of_decisions_has_every_record() -> None:
    folder = DOCS / "decisions"
    records = sorted(page.name for page in folder.glob("[0-9]*.md"))
    assert links(PAGES[folder / "index.md"]) == records
    for record in records:
        assert re.match(rf"# {int(record[:4])}\. ", PAGES[folder / record])
        assert re.findall(r"^\*\*(\w+)\.\*\*", PAGES[folder / record], re.M) == ["Context", "Choice", "Consequences"]


def test_the_readme_names_targets_and_configuration_that_exist(tmp_path: Path) -> None:
    text = PAGES[ROOT / "README.md"]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"`make ([a-z]+)`|^\$ make ([a-z]+)", text, re.M))
    assert {one or other for one, other in named} <= targets
    (toml,) = [block.content for block in blocks(text) if block.language == "toml"]
    (tmp_path / "spear.toml").write_text(toml, encoding="utf-8")
    assert len(load_config(tmp_path / "spear.toml", environ={}).backends) == 2


def test_a_broken_link_is_found() -> None:
    page = DOCS / "index.md"
    assert problem(page, "tutorial.md#2-write-a-guest") == ""
    assert problem(page, "nowhere.md") == "there is no such file"
    assert problem(page, "tutorial.md#nowhere") == "docs/tutorial.md has no heading #nowhere"
    assert problem(page, "../README.md") == "is outside of docs/, and so of the site"
    assert links("[a](b.md) `[c](d.md)` and [`e`](f.md#g)\n```text\n[h](i.md)\n```\n") == ["b.md", "f.md#g"]
