"""The store as files: what is committed is there whole, what is not leaves nothing, and nothing damaged is given."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.ir import CallerError, ErrorCode, RoutingError, SpearError
from spear.media import FileStore, _files
from spear.media._account import Quotas
from spear.media._hashing import Hashing
from spear.media._names import id_of, new_id, uri_of
from spear.media._record import DamagedRecord, Record, parse_record

MIB = 1024 * 1024
ROOMY = Quotas(object_bytes=64 * MIB, task_bytes=512 * MIB, task_objects=1024, bytes=4096 * MIB, objects=65_536)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    made = FileStore(tmp_path / "media", ROOMY, expire_s=3600.0, now=clock)
    yield made
    made.close()


def again(store, **more):
    """Another process over the same folder, so to speak."""
    return FileStore(store.root, store.account.quotas, expire_s=3600.0, now=store.now, **more)


def put(store, data=b"hello", mime="text/plain", owner="a", *, durable=False):
    writing = store.create(mime, owner)
    writing.append(data)
    return writing.commit(durable=durable)


def get(store, ref, task="a"):
    reading = store.open(ref.uri, task)
    try:
        parts = []
        while part := reading.read(MIB):
            parts.append(part)
        return b"".join(parts)
    finally:
        reading.close()


def code_of(call) -> ErrorCode:
    with pytest.raises((CallerError, RoutingError)) as raised:
        call()
    return raised.value.code


def files_below(path: Path) -> int:
    return sum(each.is_file() and each.name != "lock" for each in path.rglob("*"))


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_committed_is_there(store, durable):
    data = os.urandom(3 * MIB + 17)
    ref = put(store, data, "image/png", durable=durable)
    assert (ref.mime, ref.size, ref.sha256) == ("image/png", len(data), hashlib.sha256(data).hexdigest())
    assert get(store, ref) == data
    assert get(again(store), ref) == data
    assert ref.sha256 not in ref.uri


def test_a_commit_is_repeatable_and_seals(store):
    writing = store.create("text/plain", "a")
    writing.append(b"one")
    first = writing.commit()
    assert writing.commit() == first
    assert code_of(lambda: writing.append(b"two")) is ErrorCode.INVALID_REQUEST
    writing.discard()
    assert get(store, first) == b"one"


def test_nothing_without_commit(store):
    writing = store.create("text/plain", "a")
    writing.append(b"half")
    assert store.account.of("a").bytes == 4
    writing.discard()
    writing.discard()
    assert (store.account.of("a").bytes, store.account.of("a").objects) == (0, 0)
    assert code_of(lambda: store.open(uri_of(writing.id), "a")) is ErrorCode.MEDIA_NOT_FOUND
    assert code_of(writing.commit) is ErrorCode.INVALID_REQUEST
    assert files_below(store.root) == 0


def test_an_empty_object_is_refused(store):
    assert code_of(store.create("text/plain", "a").commit) is ErrorCode.INVALID_REQUEST


def test_who_may_read(store):
    ref = put(store, owner="a")
    assert get(store, ref, None) == get(store, ref, "a") == b"hello"
    assert code_of(lambda: get(store, ref, "b")) is ErrorCode.MEDIA_NOT_FOUND
    store.grant(ref.uri, "b")
    assert get(store, ref, "b") == b"hello"
    assert get(again(store), ref, "b") == b"hello"
    assert code_of(lambda: get(store, ref, "c")) is ErrorCode.MEDIA_NOT_FOUND
    hosts = put(store, owner=None)
    assert code_of(lambda: get(store, hosts, "a")) is ErrorCode.MEDIA_NOT_FOUND


def test_the_same_bytes_are_stored_once_and_belong_to_both(store):
    first, second = put(store, b"x" * MIB, owner="a"), put(store, b"x" * MIB, owner="b", durable=True)
    assert first.uri != second.uri
    ids = [id_of(each.uri) for each in (first, second)]
    assert os.path.samefile(*(store.path_of(each) for each in ids))
    assert store.delete_task("a") == 1
    assert get(store, second, "b") == b"x" * MIB
    assert code_of(lambda: get(store, first, "a")) is ErrorCode.MEDIA_NOT_FOUND
    store.delete(ids[1])
    assert files_below(store.root) == 0
    assert store.account.total.objects == store.account.total.bytes == 0


def test_bytes_that_were_damaged_are_not_shared_with_the_next(store):
    """As after a power cut: the file is there, its bytes are not."""
    first = put(store, b"y" * 1000)
    store.path_of(id_of(first.uri)).write_bytes(b"\0" * 1000)
    second = put(store, b"y" * 1000, durable=True)
    assert get(store, second) == b"y" * 1000
    with pytest.raises(CallerError, match="damaged"):
        get(store, first)


@pytest.mark.parametrize("damage", [b"jello", b"hell", b"hello!", b""])
def test_damage_is_told_before_the_bytes_are_given(store, damage):
    ref = put(store)
    store.path_of(id_of(ref.uri)).write_bytes(damage)
    with pytest.raises(CallerError, match="damaged"):
        get(store, ref)
    assert get(store, put(store)) == b"hello"


def test_an_open_object_keeps_its_bytes(store):
    ref = put(store, b"z" * 3 * MIB)
    reading = store.open(ref.uri, "a")
    assert reading.peek(5) == reading.peek(5) == b"zzzzz"
    assert reading.position == 0
    store.delete(id_of(ref.uri))
    total = 0
    while part := reading.read(MIB):
        total += len(part)
    reading.close()
    assert total == 3 * MIB
    reading.close()


def test_only_so_many_are_open(store):
    ref = put(store)
    readings = [store.open(ref.uri, None) for _ in range(_files.OPEN_OBJECTS)]
    assert code_of(lambda: store.open(ref.uri, "a")) is ErrorCode.OVERLOADED
    readings.pop().close()
    store.open(ref.uri, "a").close()
    for each in readings:
        each.close()


def test_one_task_leaves_others_room(store):
    ref, other = put(store), put(store, owner="b")
    readings = [store.open(ref.uri, "a") for _ in range(_files.OPEN_OBJECTS_OF_TASK)]
    assert code_of(lambda: store.open(ref.uri, "a")) is ErrorCode.OVERLOADED
    assert get(store, other, "b") == get(store, ref, None) == b"hello"
    readings.pop().close()
    assert get(store, ref) == b"hello"
    for each in readings:
        each.close()


@pytest.mark.parametrize("mime", ["image/png\n;a=b", "image/png\r\n;x", "image/png\t;x", "image/png\v;x"])
def test_a_type_that_no_header_could_have(store, mime):
    assert code_of(lambda: store.create(mime, "a")) is ErrorCode.INVALID_REQUEST
    assert store.account.total.objects == 0


def test_expiry(store, clock):
    ref = put(store)
    reading = store.open(ref.uri, "a")
    clock.now += 3600
    assert code_of(lambda: store.open(ref.uri, "a")) is ErrorCode.MEDIA_NOT_FOUND
    assert reading.read(10) == b"hello"
    reading.close()
    assert store.sweep() == 1
    assert files_below(store.root) == 0


def small(tmp_path, clock, **more):
    quotas = {"object_bytes": 100, "task_bytes": 150, "task_objects": 3, "bytes": 400, "objects": 5} | more
    return FileStore(tmp_path / "small", Quotas(**quotas), expire_s=3600.0, now=clock)


def test_limits(tmp_path, clock):
    store = small(tmp_path, clock)
    writing = store.create("text/plain", "a")
    writing.append(b"1" * 60)
    assert code_of(lambda: writing.append(b"1" * 41)) is ErrorCode.MEDIA_TOO_LARGE
    writing.append(b"1" * 40)
    second = store.create("text/plain", "a")
    assert code_of(lambda: second.append(b"2" * 51)) is ErrorCode.MEDIA_TOO_LARGE
    second.append(b"2" * 50)
    third = store.create("text/plain", "a")
    assert code_of(lambda: store.create("text/plain", "a")) is ErrorCode.MEDIA_TOO_LARGE
    assert code_of(lambda: third.append(b"3")) is ErrorCode.MEDIA_TOO_LARGE
    second.discard()
    third.append(b"3" * 50)
    refs = [writing.commit(), third.commit()]
    refs.extend(put(store, b"4" * 100, owner=name) for name in ("b", "c"))
    assert code_of(lambda: put(store, b"5" * 51, owner="d")) is ErrorCode.MEDIA_TOO_LARGE
    assert [len(get(store, ref, None)) for ref in refs] == [100, 50, 100, 100]


def test_what_has_expired_makes_place(tmp_path, clock):
    store = small(tmp_path, clock)
    for _ in range(3):
        put(store, b"1" * 50)
    assert code_of(lambda: store.create("text/plain", "a")) is ErrorCode.MEDIA_TOO_LARGE
    clock.now += 3600
    assert get(store, put(store, b"2" * 100)) == b"2" * 100


def test_the_quota_counts_what_was_there(tmp_path, clock):
    store = small(tmp_path, clock)
    for _ in range(3):
        put(store, b"1" * 50)
    store.close()
    assert code_of(lambda: small(tmp_path, clock).create("text/plain", "a")) is ErrorCode.MEDIA_TOO_LARGE


@pytest.mark.parametrize(
    "mime", ["", "text", "text/", "/plain", "te xt/plain", "text/plain\n", "täxt/plain", "a/" + "b" * 126, "a/b/c"]
)
def test_no_type(store, mime):
    assert code_of(lambda: store.create(mime, "a")) is ErrorCode.INVALID_REQUEST


def test_types_with_parameters(store):
    assert put(store, mime="audio/L16;rate=16000").mime == "audio/L16;rate=16000"


# --- what the disk does


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("written", [0, 3])
def test_a_write_that_fails_appends_nothing(store, monkeypatch, code, written):
    real = os.write
    writing = store.create("text/plain", "a")
    writing.append(b"good ")
    calls = []

    def full(fd, data):
        calls.append(len(data))
        if len(calls) == 1 and written:
            return real(fd, data[:written])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CallerError, match="disk of the media store is full") as raised:
        writing.append(b"lost")
    assert raised.value.code is ErrorCode.MEDIA_TOO_LARGE
    assert store.account.of("a").bytes == 5
    with pytest.raises(CallerError, match="disk of the media store is full"):
        writing.commit()
    monkeypatch.undo()
    writing.append(b"bytes")
    assert get(store, writing.commit()) == b"good bytes"


def test_leftovers_of_a_process_that_was_killed_go(store):
    """Its folder is there and nobody holds the lock."""
    ref = put(store)
    dead = store.root / "writing" / "0123456789abcdef"
    (dead / "half").mkdir(parents=True)
    (dead / "half" / "data").write_bytes(b"half")
    (dead / "lock").touch()
    writing = store.create("text/plain", "a")
    writing.append(b"alive")
    other = again(store)
    assert not dead.exists()
    assert get(other, writing.commit()) == b"alive"
    assert get(other, ref) == b"hello"


def test_a_store_whose_object_another_process_deleted(store):
    ref = put(store)
    again(store).delete(id_of(ref.uri))
    assert code_of(lambda: get(store, ref)) is ErrorCode.MEDIA_NOT_FOUND
    assert store.account.total.objects == 0


# --- addresses and records from outside


@settings(max_examples=50)
@given(st.text(max_size=80) | st.sampled_from(["../x", "/" * 40, "a" * 39 + "\n", "a" * 40 + "\n"]))
def test_no_text_is_an_address_of_something_else(text):
    for uri in (text, "smsfile://" + text):
        found = id_of(uri)
        assert found is None or (len(found) == 40 and set(found) <= set("0123456789abcdef"))


def test_forged_addresses_lead_nowhere(store):
    put(store)
    (store.root / "secret").mkdir()
    for uri in ("smsfile://../secret", "smsfile://.", "smsfile://", "/etc/passwd", uri_of(new_id()), uri_of("..")):
        assert code_of(lambda uri=uri: store.open(uri, None)) is ErrorCode.MEDIA_NOT_FOUND
    store.delete("../secret")
    assert (store.root / "secret").exists()


GOOD = Record(
    id="0" * 40, mime="text/plain", size=5, sha256="1" * 64, owner="a", grants=("b",), created=1.0, expires=2.0
)


def test_a_record_reads_as_written():
    assert parse_record(GOOD.dump(), GOOD.id) == GOOD


@settings(max_examples=50)
@given(data=st.data())
def test_a_damaged_record_is_a_record_or_an_error(data):
    text = bytearray(GOOD.dump())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(text[: data.draw(st.integers(0, len(text)))])
    with suppress(DamagedRecord):
        parse_record(cut, GOOD.id)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[" * 60_000,
        b" " * 70_000,
        GOOD.dump().replace(b'"size":5', b'"size":-5'),
        GOOD.dump().replace(b'"size":5', b'"size":5,"more":1'),
        GOOD.dump().replace(b"2.0", b"1e999"),
        GOOD.dump().replace(b"0000", b"../."),
        GOOD.dump().replace(b"1111", b"/../", 1),
    ],
)
def test_forged_records(store, text):
    """As somebody might write them who can write to the folder: the store opens, and gives none of it."""
    with pytest.raises(DamagedRecord):
        parse_record(text, GOOD.id)
    ref = put(store)
    forged = store.root / "objects" / GOOD.id
    forged.mkdir()
    (forged / "record.json").write_bytes(text)
    (forged / "data").write_bytes(b"hello")
    opened = again(store)
    assert code_of(lambda: opened.open(uri_of(GOOD.id), None)) is ErrorCode.MEDIA_NOT_FOUND
    assert get(opened, ref) == b"hello"
    assert forged.exists(), "what cannot be read is not deleted at once"


def test_links_and_pipes_in_place_of_files(store, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"other")
    ref = put(store)
    path = store.path_of(id_of(ref.uri))
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(Exception, match="disk"):
        get(store, ref)
    (path.parent / "record.json").unlink()
    os.mkfifo(path.parent / "record.json")
    assert code_of(lambda: get(again(store), ref)) is ErrorCode.MEDIA_NOT_FOUND


def test_damage_that_is_old_goes(store, clock):
    forged = store.root / "objects" / GOOD.id
    forged.mkdir()
    (forged / "record.json").write_bytes(b"nothing")
    clock.now = forged.stat().st_mtime + 3601
    store.sweep()
    assert not forged.exists()


def test_a_folder_that_is_gone_says_so(store):
    shutil.rmtree(store.root)
    with pytest.raises(Exception, match="media store cannot use its disk: no such file"):
        store.create("text/plain", "a")


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3) | st.integers(510_000, 540_000), max_size=6), st.booleans())
def test_a_checksum_beside_the_work_is_that_of_all_in_order(sizes, looked):
    ours, theirs = Hashing(), hashlib.sha256()
    for number, size in enumerate(sizes):
        data = bytes([number]) * size
        ours.add(data)
        theirs.update(data)
        if looked:
            assert ours.copy().hexdigest() == theirs.hexdigest()
    assert ours.hexdigest() == theirs.hexdigest()
    assert ours._thread is None


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EMFILE, ErrorCode.OVERLOADED),
        (errno.EFBIG, ErrorCode.MEDIA_TOO_LARGE),
        (errno.EIO, ErrorCode.INTERNAL),
        (errno.EROFS, ErrorCode.INTERNAL),
    ],
)
def test_errors_of_the_disk_have_no_path(store, monkeypatch, number, code):
    writing = store.create("text/plain", "a")

    def failing(path, *args, **more):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(SpearError) as raised:
        writing.append(b"x")
    monkeypatch.undo()
    assert raised.value.code is code
    assert str(store.root) not in str(raised.value)
    assert store.account.of("a").bytes == 0
