"""Time, random, sleep, log, and the families that are switched off."""

from __future__ import annotations

import sys
import time

import pytest
import trio

from spear.hostcall import GuestEngine, Limits
from spear.hostcall._limits import LOG_RING_RECORDS
from spear.hostcall._log import LogRing
from spear.hostcall._table import SPEAR, TABLE, WASI
from tests.spear.hostcall.guests import module
from tests.spear.hostcall.probe import PAGE, TASK, Scripted, open_probe, success

# The imports of the ABI 1.0, written down a second time on purpose: name -> (parameters, result).
NAMES_1_0 = {
    **dict.fromkeys(("time_now_ms", "wall_time_s", "random_i64"), ("", "I")),
    "sleep_ms": ("i", ""),
    **dict.fromkeys(
        ("cchat_create", "rtasr_create", "mic_create", "user_stream_ctl_open", "spear_epoll_create"), ("", "i")
    ),
    **dict.fromkeys(("cchat_close", "rtasr_close", "mic_close", "user_stream_close", "spear_epoll_close"), ("i", "i")),
    **dict.fromkeys(("cchat_send", "user_stream_open"), ("ii", "i")),
    **dict.fromkeys(
        (
            *("log", "rtasr_write", "user_stream_write", "cchat_recv", "rtasr_read", "mic_read"),
            *("user_stream_read", "user_stream_ctl_read"),
        ),
        ("iii", "i"),
    ),
    **dict.fromkeys(
        ("cchat_write_fn", "cchat_ctl", "rtasr_ctl", "mic_ctl", "spear_fd_ctl", "spear_epoll_ctl", "spear_epoll_wait"),
        ("iiii", "i"),
    ),
    "cchat_write_msg": ("iiiii", "i"),
}
_FAMILIES = ("emb", "img", "asr", "tts")
NAMES_1_1 = {
    "spear_abi_version": ("", "i"),
    **{f"{x}_create": ("", "i") for x in (*_FAMILIES, "rt")},
    **{f"{x}_close": ("i", "i") for x in (*_FAMILIES, "media", "rt")},
    "rt_open_audio": ("i", "i"),
    **dict.fromkeys(("spear_capabilities", "spear_last_error", "media_create", "media_open"), ("ii", "i")),
    **{f"{x}_send": ("ii", "i") for x in _FAMILIES},
    **{f"{x}_{what}": ("iii", "i") for x in _FAMILIES for what in ("write", "recv")},
    **dict.fromkeys(("media_write", "media_commit", "media_read", "rt_write", "rt_read"), ("iii", "i")),
    **{f"{x}_ctl": ("iiii", "i") for x in (*_FAMILIES, "rt")},
    "cchat_write_parts": ("iiiii", "i"),
}


def test_table_is_the_abi():
    assert len(NAMES_1_0) == 32
    assert len(NAMES_1_1) == 40
    here = {call.name: (call.params, call.result) for call in TABLE if call.module == SPEAR}
    assert {name: here.get(name) for name in NAMES_1_0} == NAMES_1_0
    assert here.items() <= (NAMES_1_0 | NAMES_1_1).items()
    assert sum(call.module == WASI for call in TABLE) == 46
    assert len({(call.module, call.name) for call in TABLE}) == len(TABLE)


async def test_time_and_random():
    async with open_probe() as probe:
        assert abs(await probe.call("time_now_ms") - time.time() * 1000) < 2000
        assert abs(await probe.call("wall_time_s") - time.time()) < 2
        values = {await probe.call("random_i64") for _ in range(64)}
        assert len(values) == 64
        assert min(values) < 0 < max(values)
        assert any(abs(value) > 2**60 for value in values)


async def test_sleep_waits_and_lets_others_run():
    async with open_probe() as probe:
        with trio.fail_after(5):
            begin = time.monotonic()
            await probe.call("sleep_ms", 30)
            assert time.monotonic() - begin >= 0.03
            await probe.call("sleep_ms", -5)
            await probe.call("sleep_ms", 0)


async def test_log_levels_and_text():
    async with open_probe() as probe:
        where = probe.put(100, b"a\xffb\n")
        for level in (0, 1, 2, 3, 4, 5, -1):
            assert await probe.call("log", level, *where) == 0
        assert await probe.call("log", 2, 100, 0) == 0
        records = probe.guest.log.read()
        assert [record.level for record in records] == [
            *("trace", "debug", "info", "warn", "error", "info", "info", "info")
        ]
        assert [record.seq for record in records] == list(range(1, 9))
        assert records[0].message == "a\ufffdb\n"
        assert records[-1].message == ""
        assert (records[0].execution_id, records[0].task_id, records[0].instance_id) == ("exec-1", "probe", "inst-1")


@pytest.mark.parametrize(
    ("pointer", "length", "expected"),
    [
        (0, -1, -22),
        (0, 16_385, -22),
        (-1, 16_385, -22),  # the cap comes before the memory
        (0, 16_384, 0),
        (-1, 4, -14),
        (2 * PAGE - 3, 4, -14),
        (2 * PAGE - 4, 4, 0),
        (2 * PAGE, 0, 0),
        (2 * PAGE + 1, 0, -14),
        (0x7FFF_FFFF, 16_384, -14),
    ],
)
async def test_log_check_order(pointer: int, length: int, expected: int):
    async with open_probe() as probe:
        assert await probe.call("log", 2, pointer, length) == expected
        assert len(probe.guest.log.read()) == (expected == 0)


def test_log_ring_keeps_the_newest():
    seen = []
    ring = LogRing("e", "t", "i", seen.append)
    for n in range(LOG_RING_RECORDS + 10):
        ring.add("info", str(n))
    assert ring.dropped == 10
    assert len(seen) == LOG_RING_RECORDS + 10
    assert [record.seq for record in ring.read(after=2050, limit=3)] == [2051, 2052, 2053]
    assert ring.read(after=10**9) == ()
    assert ring.read()[0].message == "10"


@pytest.mark.parametrize("character", ["a", "\N{REPLACEMENT CHARACTER}", "\N{PILE OF POO}"])
def test_log_ring_is_bounded_by_the_room_it_takes(character: str):
    seen = []
    ring = LogRing("e", "t", "i", seen.append, max_bytes=100_000)
    for n in range(100):
        ring.add("info", f"{n} {character * 5000}")
    kept = ring.read()
    assert sum(sys.getsizeof(record.message) for record in kept) <= 100_000
    assert len(kept) >= 4
    assert [record.seq for record in kept] == list(range(101 - len(kept), 101))
    assert ring.dropped == 100 - len(kept)
    assert len(seen) == 100
    for n in range(LOG_RING_RECORDS):
        ring.add("info", str(n))
    assert len(ring.read()) > 1000  # the room comes back
    ring.add("info", character * 200_000)
    (only,) = ring.read()  # the newest stays
    assert len(only.message) == 200_000


async def test_the_room_for_logs_is_a_limit_of_the_guest():
    log = "(drop (call $log (i32.const 2) (i32.const 0) (i32.const 16384)))"
    async with GuestEngine(cache_directory=None, limits=Limits(log_bytes=50_000)) as engine:
        loaded = await engine.load(module(f'(func (export "_start") {log * 9})'))
        done = await engine.run(loaded, task=TASK, chat=Scripted(success()))
    assert (len(done.logs), done.logs_dropped, done.logs[-1].seq) == (3, 6, 9)


async def test_switched_off_families_answer_38_and_their_closes_are_generic():
    async with open_probe() as probe:
        for name in NAMES_1_0:
            if name.startswith(("rtasr_", "mic_", "user_stream_")) and not name.endswith("_close"):
                arguments = [-1] * len(NAMES_1_0[name][0])
                assert await probe.call(name, *arguments) == -38, name
        for name in ("rtasr_close", "mic_close", "user_stream_close", "spear_epoll_close", "cchat_close"):
            fd = await probe.call("cchat_create")
            assert await probe.call(name, 77) == -9
            assert await probe.call(name, fd) == 0
            assert await probe.call(name, fd) == 0


async def test_without_memory_every_pointer_is_bad():
    async with open_probe(memory=False) as probe:
        assert await probe.call("log", 2, 0, 0) == -14
        assert await probe.call("fd_write", 1, 0, 0, 0) == 21
        fd = await probe.call("cchat_create")
        assert fd == 1000
        assert await probe.call("cchat_write_msg", fd, 0, 0, 0, 0) == -14
