"""The rotating file, on a real file system: exact bounds, whole lines, failures."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.router.record import Replay, Unreadable, in_order, read_records
from spear.router.record._file import RotatingFile
from spear.router.record._log import Entry
from tests.spear.router.record_world import decided, desk_of, log_of, results
from tests.spear.router.test_record_replay import three
from tests.spear.router.world import chat

HEADER = b'{"generation":1}\n'


def entries(*lengths, header=HEADER):
    """Lines of exactly these lengths, numbered."""
    return [Entry(header, f"{number:<{length - 1}}\n".encode()) for number, length in enumerate(lengths)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "d.jsonl"


def content(path):
    return {each.name: each.read_bytes() for each in sorted(path.parent.iterdir())}


def test_a_file_is_full_to_the_last_byte_before_it_is_rotated(path):
    file = RotatingFile(path, 100, 3)
    file.append(entries(40, 43))  # with the header: 100
    assert list(content(path)) == ["d.jsonl"]
    assert path.stat().st_size == 100
    file.append(entries(4))
    assert list(content(path)) == ["d.jsonl", "d.jsonl.1"]
    file.close()
    assert content(path)["d.jsonl"] == HEADER + b"0  \n"


@given(
    batches=st.lists(st.lists(st.integers(6, 40) | st.just(301), max_size=8), max_size=12),
    most=st.integers(60, 300),
    files=st.integers(1, 4),
    headers=st.lists(st.sampled_from([HEADER, b'{"generation":2}\n', None]), min_size=1),
    reopen=st.integers(1, 5),
)
@settings(deadline=None, max_examples=100)
def test_bounds_and_order_whatever_comes(tmp_path_factory, batches, most, files, headers, reopen):
    path = tmp_path_factory.mktemp("log") / "d.jsonl"
    file, sent, too_long = RotatingFile(path, most, files), [], 0
    for number, lengths in enumerate(batches):
        header = headers[number % len(headers)]
        batch = [Entry(header, f"{len(sent) + i:<{length - 1}}\n".encode()) for i, length in enumerate(lengths)]
        too_long += file.append(batch)
        sent += batch
        if number % reopen == 0:
            file.close()
    file.close()
    found = content(path)
    assert set(found) <= {"d.jsonl", *(f"d.jsonl.{number}" for number in range(1, files))}
    assert all(len(data) <= most for data in found.values())
    names = [each.name for each in in_order([path.parent / name for name in found])]
    lines = [line for name in names for line in found[name].splitlines(keepends=True)]
    assert all(line.endswith(b"\n") for line in lines)
    kept = [line for line in lines if b"generation" not in line]
    fitting = [each.line for each in sent if len(each.line) < 301]
    assert too_long == len(sent) - len(fitting)
    assert kept == fitting[len(fitting) - len(kept) :]  # what is gone is the oldest
    assert kept or not fitting
    if len(kept) < len(fitting):
        assert len(found) == files
    belongs = {each.line: each.header for each in sent}
    for data in found.values():  # each file can be read alone
        stated = {None}
        for line in data.splitlines(keepends=True):
            if b"generation" in line:
                stated.add(line)
            else:
                assert belongs[line] in stated


def test_a_line_that_fits_into_no_file(path):
    file = RotatingFile(path, 100, 2)
    assert file.append(entries(30, 101, 30)) == 1
    file.close()
    assert [len(line) for line in path.read_bytes().splitlines(keepends=True)] == [len(HEADER), 30, 30]


def test_fewer_files_than_before(path):
    for number in range(1, 6):
        path.with_name(f"d.jsonl.{number}").write_text("old\n")
    path.write_text("x" * 90 + "\n")
    file = RotatingFile(path, 100, 3)
    file.append(entries(50))
    file.close()
    assert list(content(path)) == ["d.jsonl", "d.jsonl.1", "d.jsonl.2"]


def test_an_unfinished_line_is_closed_off(path):
    path.write_bytes(b'{"v":1,"kind":"dec')
    file = RotatingFile(path, 1000, 2)
    file.append(entries(5))
    file.close()
    assert path.read_bytes().splitlines() == [b'{"v":1,"kind":"dec', HEADER.strip(), b"0   "]


def test_the_file_is_private(path):
    file = RotatingFile(path, 1000, 2)
    file.append(entries(5))
    file.close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_somebody_takes_the_file_away(path, how):
    file = RotatingFile(path, 1000, 2)
    file.append(entries(5))
    path.rename(path.with_name("elsewhere")) if how == "moved" else path.unlink()
    file.append(entries(6))
    file.close()
    assert path.read_bytes() == HEADER + b"0    \n"


def test_two_writers_do_not_mix(path):
    one, other = RotatingFile(path, 1000, 2), RotatingFile(path, 1000, 2)
    one.append(entries(5))
    with pytest.raises(OSError, match="another process writes it") as caught:
        other.append(entries(5))
    assert caught.value.errno == errno.EBUSY
    one.close()
    assert other.append(entries(5)) == 0
    other.close()


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr("spear.router.record._file._check_regular", lambda fd: None)  # a device that is always full
    file = RotatingFile(Path("/dev/full"), 1000, 2)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match="No space left") as caught:
            file.append(entries(50))
        assert caught.value.errno == errno.ENOSPC
    assert len(os.listdir("/proc/self/fd")) == before


LIMITED = """
import resource, sys
from pathlib import Path
from tests.spear.router.test_record_file import entries, RotatingFile
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
file = RotatingFile(Path(sys.argv[1]), 100_000, 2)
file.append(entries(50))
try:
    file.append(entries(90))
except OSError as error:
    print(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file.append(entries(60))
"""


def test_what_was_half_written_is_taken_back(path):
    """The system writes as much as there is room for, and refuses the rest."""
    command = [sys.executable, "-c", LIMITED, str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{errno.EFBIG}\n", "")
    lengths = [len(line) for line in path.read_bytes().splitlines(keepends=True)]
    assert lengths == [len(HEADER), 50, len(HEADER), 60]


# --- reading ------------------------------------------------------------------------------------------------------


def a_log(count=3):
    desk = desk_of(three())
    for _ in range(count):
        decided(desk, chat(), 0.0)
    return log_of(desk)


LOG = a_log()


def read(data):
    return list(read_records(io.BytesIO(data), "d"))


@given(data=st.binary(max_size=300) | st.text().map(str.encode))
@settings(max_examples=300)
def test_any_bytes_are_read(data):
    list(results(data, Replay()))


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_a_log_with_damage_is_read(data):
    """Every kind of damage costs the lines it hits, and raises nothing; the rest is as it was."""
    damaged = bytearray(LOG)
    at = data.draw(st.integers(0, len(LOG) - 1))
    match data.draw(st.sampled_from(["byte", "cut", "remove", "insert", "swap"])):
        case "byte":
            damaged[at] = data.draw(st.integers(0, 255))
        case "cut":
            del damaged[at:]
        case "remove":
            del damaged[at : at + data.draw(st.integers(1, 400))]
        case "insert":
            damaged[at:at] = data.draw(st.binary(max_size=20))
        case _:
            number = data.draw(st.sampled_from([b"null", b"-1", b"1e999", b"[]", b'"x"', b"18446744073709551616"]))
            where = damaged.find(b":", at) + 1
            end = min(each for each in (damaged.find(b",", where), damaged.find(b"}", where), len(damaged)) if each > 0)
            damaged[where:end] = number
    found = list(results(bytes(damaged), Replay()))
    lines, intact = bytes(damaged).split(b"\n"), LOG.splitlines()
    if intact[0] in lines:  # the generation
        readable = sum(line in intact[1:] for line in lines[lines.index(intact[0]) :])
        assert sum(not isinstance(each, Unreadable) for each in found) >= readable


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{\n", "not JSON"),
        (b"[]\n", "not a JSON object"),
        (b"{}\n", "no record"),
        (b'{"v":2,"kind":"decision"}\n', "of version 2; this Spear reads version 1"),
        (b'{"v":"\\u0007"}\n', "of version something else"),
        (b'{"v":true,"kind":"decision"}\n', "of version"),
        (b'{"v":1,"kind":"other"}\n', "of no known kind; known: generation, decision"),
        (b'{"v":1,"kind":["decision"]}\n', "of no known kind"),
        (b'{"v":1,"kind":"decision"}\n', "not a whole record: run"),
        (b'{"v":1,"kind":"deci', "an unfinished last line"),
    ],
)
def test_a_line_that_is_no_record_is_named(line, said):
    found = read(LOG + b"\n" + line)
    assert len(found) == 5
    assert str(found[-1]).startswith("d:6: ")
    assert said in str(found[-1])


def test_the_order_of_rotated_files():
    names = ["b.log", "a.jsonl", "a.jsonl.1", "a.jsonl.10", "a.jsonl.2"]
    ordered = [each.name for each in in_order([Path("x") / name for name in names])]
    assert ordered == ["b.log", "a.jsonl.10", "a.jsonl.2", "a.jsonl.1", "a.jsonl"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")], ids=["pipe", "device"])
def test_what_is_no_regular_file_is_neither_written_nor_renamed(path, make):
    make(path)
    with pytest.raises(OSError, match="no regular file"):
        RotatingFile(path, 1000, 2).append(entries(10))
    assert list(path.parent.iterdir()) == [path]
