"""spear config check and init."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from spear.cli._config import config
from spear.config import load_config

TEXT = """\
[[spear.credentials]]
name = "k"
env = "CHECK_KEY"

[[spear.backends]]
name = "gpt"
kind = "openai_chat"
hosting = "remote"
base_url = "https://canary.example/v1"
model = "m"
model_class = "small"
credentials = ["k"]
weight = 80

[[spear.routes]]
match = { model_class = "small" }
policy = "round_robin"

[[spear.tasks]]
id = "agent"
allow_backends = ["gpt"]
"""
EXISTING = """\
[[spearlet.llm.backends]]
name = "a"
kind = "openai_realtime_ws"
hosting = "local"
ops = ["chat_completions"]
[[spearlet.llm.backends]]
name = "b"
kind = "stub"
hosting = "local"
ops = ["chat_completions"]
[[spearlet.llm.backends]]
name = "b"
kind = "stub"
hosting = "local"
ops = ["chat_completions"]
"""

EMBEDDED = ["stub", "hashed_ngrams", "prompt_card", "espeak", "pocketsphinx"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPEAR_CONFIG", raising=False)
    monkeypatch.delenv("CHECK_KEY", raising=False)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(config, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "canary" not in result.output
    return result


def rows(result: Result) -> list[list[str]]:
    return [re.split(r" {2,}", line) for line in result.stdout.splitlines()]


def test_a_good_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("spear.toml").write_text(TEXT, encoding="utf-8")
    missing = run("check")
    assert missing.exit_code == 0
    row = ["gpt", "openai_chat", "remote", "m", "small", "80", "0", "k (env:CHECK_KEY missing)", "missing_credential"]
    assert row in rows(missing)
    monkeypatch.setenv("CHECK_KEY", "sk-canary")
    present = run("check")
    assert ["gpt", "openai_chat", "remote", "m", "small", "80", "0", "k (present)", "ready"] in rows(present)
    assert ["any", "small", "round_robin", "-"] in rows(present)
    assert ["agent", "all", "gpt", "-"] in rows(present)


def test_hedges_mirrors_and_budgets_are_shown() -> None:
    budget = "[[spear.budgets]]\nname = 'daily'\nwindow = '1d'\ncost = 2.5\ntokens = 10\n"
    filters = "[[spear.filters]]\nname = 'guard'\nkind = 'python'\n"
    route = "hedge = { delay = 'p95' }\nfilter = 'guard'\n\n[[spear.tasks]]"
    Path("spear.toml").write_text(TEXT.replace("\n[[spear.tasks]]", route) + budget + filters, encoding="utf-8")
    shown = run("check")
    assert ["any", "small", "round_robin", "-", "guard", "5 % after p95"] in rows(shown)
    assert ["daily", "all", "86400 s", "tokens 10, cost 2.5", "-"] in rows(shown)
    assert json.loads(run("check", "--json").stdout)["budgets"][0]["name"] == "daily"


def test_for_machines() -> None:
    Path("other.toml").write_text(TEXT, encoding="utf-8")
    result = run("check", "other.toml", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["valid"] is True
    assert found["file"].endswith("other.toml")
    assert found["backends"][0]["credential"] == "k (env:CHECK_KEY missing)"
    assert found["backends"][0]["line"] == 5
    assert found["routes"][0]["policy"] == "round_robin"


def test_a_bad_file_shows_everything() -> None:
    Path("spear.toml").write_text(
        TEXT.replace("weight", "wieght").replace('"round_robin"', '"rund_robin"'), encoding="utf-8"
    )
    result = run("check")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert 'spear.toml:13: spear.backends[0].wieght: is not a known key; did you mean "weight"?' in result.stderr
    assert 'spear.toml:17: spear.routes[0].policy: is no policy; did you mean "round_robin"?' in result.stderr
    assert "2 problem(s)" in result.stderr
    machine = run("check", "--json")
    assert machine.exit_code == 2
    assert [each["line"] for each in json.loads(machine.stdout)["problems"]] == [13, 17]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"openai_chat"', '"opanai"', "kind"),
        ("https://", "http://", "base_url"),
        ("https://", "https://me:pw@", "base_url"),
    ],
)
def test_what_only_the_kinds_and_the_egress_policy_know_is_checked_too(old: str, new: str, expected: str) -> None:
    Path("spear.toml").write_text(TEXT.replace(old, new), encoding="utf-8")
    result = run("check")
    assert result.exit_code == 2
    assert f"spear.backends[0].{expected}: " in result.stderr


def test_an_existing_file_shows_what_was_skipped() -> None:
    Path("spear.toml").write_text(EXISTING, encoding="utf-8")
    result = run("check")
    assert result.exit_code == 0
    skipped = {(row[0], row[2].partition(":")[0]) for row in rows(result) if len(row) == 3}
    assert {("a", "unknown_kind"), ("b", "duplicate_name")} <= skipped
    assert "warning: " in result.stderr


def test_without_a_file_it_is_the_stub() -> None:
    result = run("check")
    assert result.exit_code == 0
    assert "no configuration found: the embedded backends" in result.stdout
    assert run("check", "missing.toml").exit_code == 2


def test_the_first_file_works_at_once() -> None:
    assert run("init").exit_code == 0
    again = run("init")
    assert again.exit_code == 2
    assert "--force" in again.stderr
    written = Path("spear.toml").read_text(encoding="utf-8")
    Path("spear.toml").write_text("", encoding="utf-8")
    assert run("init", "--force").exit_code == 0
    assert Path("spear.toml").read_text(encoding="utf-8") == written
    checked = run("check")
    assert checked.exit_code == 0
    assert checked.stderr == ""
    loaded = load_config(Path("spear.toml"), environ={})
    assert [(each.name, each.kind) for each in loaded.backends] == [(kind, kind) for kind in EMBEDDED]


def test_the_examples_in_the_first_file_are_right() -> None:
    run("init")
    Path("spear.toml").write_text(
        re.sub(r"(?m)^#(?=[^ ])", "", Path("spear.toml").read_text(encoding="utf-8")), encoding="utf-8"
    )
    assert run("check").exit_code == 0
    loaded = load_config(Path("spear.toml"), environ={})
    assert [each.name for each in loaded.backends] == [*EMBEDDED, "gpt", "own"]
    assert loaded.routes
    assert loaded.tasks


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "spear.toml").mkdir()
    result = run("init", "--force")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
