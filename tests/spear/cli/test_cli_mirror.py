"""spear mirror report: from files to a table, wide and narrow, and to JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from spear.router.mirrors import MirrorRecord, write_record
from tests.spear.cli.command import spear


def record(number: int, **fields: object) -> bytes:
    base = {
        "time": "2026-01-01T00:00:00.000+00:00", "request_id": f"req_{number}", "operation": "chat_completions",
        "model": "small", "primary": "gpt", "mirror": "local", "primary_outcome": "ok", "mirror_outcome": "ok",
        "compared": True, "text_similarity": min(1.0, number / 10), "primary_latency_ms": 100.0,
        "mirror_latency_ms": 150.0,
    }  # fmt: skip
    return write_record(MirrorRecord.model_validate({**base, **fields}))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "m.jsonl.1").write_bytes(b"".join(record(number) for number in range(1, 6)))
    (tmp_path / "m.jsonl").write_bytes(
        b"".join(record(number) for number in range(6, 11))
        + record(11, mirror="other", mirror_outcome="timeout", compared=False)
        + b'{"v": 1, "request'
    )
    return tmp_path


def test_the_table(here: Path) -> None:
    result = spear("mirror", "report", "m.jsonl.1", "m.jsonl", cwd=here)
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split() == [
        "primary", "mirror", "model", "n", "errors", "alike", "p10", "tools", "args", "schema", "time", "cost",
    ]  # fmt: skip
    assert lines[2].split() == ["gpt", "local", "small", "10", "0", "0.55", "0.10", "-", "-", "-", "1.50×", "-"]
    assert lines[3].split() == ["gpt", "other", "small", "1", "1", "-", "-", "-", "-", "-", "-", "-"]
    worst = lines[lines.index("the least alike:") + 3 :]
    assert [line.split()[-1] for line in worst] == ["req_1", "req_2", "req_3", "req_4", "req_5"]
    assert "spear: m.jsonl:7: is not JSON" in result.err
    assert "spear: 1 line(s) are no records and were left out" in result.err


def test_as_json(here: Path) -> None:
    found = spear("mirror", "report", "--json", "m.jsonl", cwd=here).json
    assert (found["records"], found["bad_lines"]) == (6, 1)
    assert found["bad"][0]["line"] == 7
    assert [each["mirror"] for each in found["groups"]] == ["local", "other"]
    assert found["groups"][0]["worst"][0] == {"similarity": 0.6, "request_id": "req_6"}


def test_nothing_to_report(here: Path) -> None:
    (here / "empty").touch()
    assert spear("mirror", "report", "empty", cwd=here).out == "no records\n"
    assert spear("mirror", "report", "missing", cwd=here).code == 2
    assert spear("mirror", "report", cwd=here).code == 2


def test_what_a_foreign_file_says_is_not_obeyed_by_the_terminal(here: Path) -> None:
    (here / "m.jsonl").write_bytes(record(1, request_id="a\x1b[2Jb\nc", mirror="x\ny"))
    result = spear("mirror", "report", "m.jsonl", cwd=here)
    assert "\x1b" not in result.out
    assert "x y" in result.out
    assert "b c" in result.out
