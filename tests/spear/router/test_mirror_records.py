"""Records as lines: written, rotated, read back, summarized; whatever else stands in the file."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.ir import dump_json
from spear.router.mirrors import (
    BadRecord,
    Journal,
    MirrorRecord,
    Summary,
    read_lines,
    read_record,
    write_record,
)
from spear.router.mirrors._actor import Mirrors
from spear.router.mirrors._side import Side
from spear.router.mirrors._summary import LONGEST_LINE
from spear.secrets import Secret
from tests.spear.router.world import chat


def record(**fields: object) -> MirrorRecord:
    base = {
        "time": "2026-01-01T00:00:00.000+00:00", "request_id": "req_1", "model": "small",
        "operation": "chat_completions", "primary": "a", "mirror": "b", "primary_outcome": "ok", "mirror_outcome": "ok",
        "compared": True,
    }  # fmt: skip
    return MirrorRecord.model_validate({**base, **fields})


def read(data: bytes) -> Summary:
    summary = Summary()
    summary.read("file", read_lines(io.BytesIO(data)))
    return summary


RECORDS = st.builds(
    record,
    request_id=st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    mirror=st.sampled_from(["b", "c"]),
    mirror_outcome=st.sampled_from(["ok", "timeout"]),
    compared=st.booleans(),
    text_similarity=st.none() | st.floats(0, 1),
    tool_names_equal=st.none() | st.booleans(),
    primary_latency_ms=st.none() | st.floats(0, 1e9),
    mirror_latency_ms=st.none() | st.floats(0, 1e9),
    primary_cost=st.none() | st.floats(0, 1e9),
    mirror_cost=st.none() | st.floats(0, 1e9),
    prompt=st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
)


@given(RECORDS)
def test_what_is_written_is_read(made: MirrorRecord) -> None:
    line = write_record(made)
    assert line.count(b"\n") == 1
    assert read_record(line) == made


@given(st.lists(RECORDS, max_size=20))
def test_a_summary_counts_every_record_once(made: list[MirrorRecord]) -> None:
    summary = read(b"".join(map(write_record, made)))
    assert summary.records == len(made) == sum(group.n for group in summary.groups)
    assert not summary.bad_lines
    dump_json(summary.as_json())


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_are_lines_that_are_records_or_bad(data: bytes) -> None:
    summary = read(data)
    lines = [line for line in data.split(b"\n") if line.strip()]
    assert summary.records + summary.bad_lines == len(lines)
    assert all(bad.why for bad in summary.bad)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from([*MirrorRecord.model_fields, "other"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.integers(), max_size=2),
    )
)
def test_any_json_object_is_a_record_or_bad(fields: dict[str, object]) -> None:
    base = record().model_dump(exclude_none=True)
    summary = read(json.dumps({**base, **fields}).encode())
    assert summary.records + summary.bad_lines == 1
    dump_json(summary.as_json())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"{}", "time: Field required"),
        (b'{"v": 2}', "v: Input should be 1"),
        (orjson.dumps({**record().model_dump(), "text_similarity": 1.5}), "text_similarity: "),
        (orjson.dumps({**record().model_dump(), "primary": "x" * 257}), "primary: "),
    ],
)
def test_a_bad_line_is_named_with_its_reason(line: bytes, why: str) -> None:
    with pytest.raises(BadRecord, match=why):
        read_record(line)
    summary = read(write_record(record()) + line + b"\n\n" + write_record(record()))
    assert (summary.records, summary.bad_lines) == (2, 1)
    (bad,) = summary.bad
    assert (bad.file, bad.line) == ("file", 2)


def test_a_line_without_end_is_one_bad_line() -> None:
    summary = read(b"x" * (3 * LONGEST_LINE) + b"\n" + write_record(record()))
    assert (summary.records, summary.bad_lines, summary.bad[0].line) == (1, 1, 1)


def test_only_the_first_bad_lines_are_named() -> None:
    summary = read(b"x\n" * 1000)
    assert summary.bad_lines == 1000
    assert len(summary.bad) == 20


def test_the_numbers_of_a_group() -> None:
    lines = [
        record(
            request_id=f"req_{number}",
            text_similarity=number / 10,
            tool_names_equal=number > 5,
            mirror_schema_valid=True,
            primary_latency_ms=100.0,
            mirror_latency_ms=100.0 + 10 * number,
            primary_cost=2.0,
            mirror_cost=0.5,
        )
        for number in range(1, 11)
    ]
    failed = record(mirror_outcome="timeout", compared=False, text_similarity=None)
    (group,) = read(b"".join(map(write_record, [*lines, failed]))).groups
    found = group.as_json()
    assert (found["n"], found["compared"], found["errors"]) == (11, 10, 1)
    assert (found["similarity_median"], found["similarity_p10"]) == (pytest.approx(0.55), 0.1)
    assert (found["tool_names_equal"], found["mirror_schema_valid"], found["tool_arguments_equal"]) == (0.5, 1, None)
    assert found["latency_ratio"] == pytest.approx(1.55)
    assert found["cost_ratio"] == pytest.approx(0.25)
    assert [each["request_id"] for each in found["worst"]] == ["req_1", "req_2", "req_3", "req_4", "req_5"]


def test_a_file_never_grows_beyond_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    journal, line = Journal(path, 1000, 3), write_record(record())
    for _ in range(40):
        journal.write(line)
        for each in tmp_path.iterdir():
            assert each.stat().st_size <= 1000
            assert read(each.read_bytes()).bad_lines == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m.jsonl", "m.jsonl.1", "m.jsonl.2"]
    kept = sum(read(each.read_bytes()).records for each in tmp_path.iterdir())
    assert kept > 2 * (1000 // len(line))


def test_one_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    journal = Journal(path, 10, 1)
    journal.write(b"123456\n")
    journal.write(b"abcdef\n")
    assert path.read_bytes() == b"abcdef\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_piece_of_a_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(write_record(record())[:-30])
    Journal(path, 10_000, 2).write(write_record(record()))
    summary = read(path.read_bytes())
    assert (summary.records, summary.bad_lines) == (1, 1)


def test_the_newest_lines_stay_in_order(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    journal = Journal(path, 30, 3)
    for number in range(20):
        journal.write(b"line %3d\n" % number)
    files = [tmp_path / "m.jsonl.2", tmp_path / "m.jsonl.1", path]
    assert b"".join(each.read_bytes() for each in files) == b"".join(b"line %3d\n" % n for n in range(12, 20))


def test_numbers_beyond_all_reason_are_left_out() -> None:
    wild = record(primary_latency_ms=5e-324, mirror_latency_ms=1e300, primary_cost=1e308, mirror_cost=1e308)
    summary = read(write_record(wild) * 3)
    (group,) = summary.groups
    dump_json(summary.as_json())
    assert (group.as_json()["latency_ratio"], group.as_json()["cost_ratio"]) == (None, None)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")], ids=["pipe", "device"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, make) -> None:
    path = tmp_path / "m.jsonl"
    make(path)
    for attempt in (Journal(path, 1000, 2).check, partial(Journal(path, 1000, 2).write, b"{}\n")):
        with pytest.raises(OSError, match=r"no regular file|No such device"):
            attempt()


def test_only_its_owner_can_read_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    Journal(path, 1000, 2).check()
    assert path.stat().st_mode & 0o077 == 0


def test_several_processes_lose_no_line(tmp_path: Path) -> None:
    """Each rotates where the file is full; none takes the other's new file for the old one."""
    path = tmp_path / "m.jsonl"
    code = (
        "import sys; from pathlib import Path; from spear.router.mirrors import Journal\n"
        "journal = Journal(Path(sys.argv[1]), 1000, 50)\n"
        "for number in range(200): journal.write(f'{sys.argv[2]}{number:>40}\\n'.encode())"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [each.wait(60) for each in writers] == [0, 0]
    lines = [line for each in tmp_path.iterdir() for line in each.read_bytes().splitlines()]
    assert sorted(lines) == sorted(f"{name}{number:>40}".encode() for name in "ab" for number in range(200))
    assert all(each.stat().st_size <= 1000 for each in tmp_path.iterdir())


def test_a_secret_that_the_cut_would_halve_is_masked_first() -> None:
    desk: Any = SimpleNamespace(
        generation=SimpleNamespace(config=SimpleNamespace(secrets=(Secret("quartz-canary-key"),)))
    )
    side = Side("a", "m", "ok")
    found = Mirrors(desk, cast("Any", None))._content(chat("my key is quartz-canary-key"), side, side, 16)
    assert found["prompt"].startswith("my key is")
    assert "quartz" not in found["prompt"]
    assert len(found["prompt"]) <= 16
