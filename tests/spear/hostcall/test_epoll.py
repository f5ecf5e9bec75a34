"""The descriptor table, spear_epoll_* and spear_fd_ctl."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.hostcall import Limits
from spear.hostcall import _fds as fds_module
from spear.hostcall._epoll import Epoll
from spear.hostcall._errno import Refused
from spear.hostcall._fds import ALL_BITS, ERR, FIRST_FD, HUP, IN, OUT, Entry, FdTable
from tests.spear.hostcall.probe import PAGE, RELAXED, Probe, open_probe

END = 2 * PAGE


class Toggle(Entry):
    """A descriptor whose readiness the test sets."""

    kind = "Toggle"
    __slots__ = ("bits",)

    def __init__(self, bits: int = 0) -> None:
        super().__init__()
        self.bits = bits

    def ready(self) -> int:
        return self.bits


def add(probe: Probe, bits: int = 0) -> tuple[int, Toggle]:
    entry = Toggle(bits)
    return probe.guest.fds.add(entry), entry


async def test_ctl_check_order():
    async with open_probe(limits=Limits(watched_fds=2)) as probe:
        epoll = await probe.call("spear_epoll_create")
        other = await probe.call("spear_epoll_create")
        closed = await probe.call("spear_epoll_create")
        await probe.call("spear_epoll_close", closed)
        fd, _ = add(probe)
        gone, _ = add(probe)
        await probe.call("cchat_close", gone)
        ctl = probe.watch
        assert await ctl(5, 5, 1, op=9) == -22  # the same number, though unknown
        assert await ctl(5, fd, 1) == -9
        assert await ctl(epoll, 5, 1, op=9) == -9
        assert await ctl(closed, fd, 1, op=9) == -9
        assert await ctl(closed, other, 1) == -9
        assert await ctl(fd, gone, 1) == -9  # no epoll
        assert await ctl(fd, other, 1) == -9
        assert await ctl(epoll, other, 1) == -22
        assert await ctl(epoll, closed, 1) == -22
        assert await ctl(epoll, fd, 1, op=0) == -22
        assert await ctl(epoll, fd, 1, op=4) == -22
        assert await ctl(epoll, fd, 1, op=3) == 0  # DEL of an unwatched one
        assert await ctl(epoll, gone, 0x1F) == 0  # ADD of a closed one
        assert await ctl(epoll, fd, 1, op=2) == 0  # MOD inserts
        third, _ = add(probe)
        assert await ctl(epoll, third, 1) == -12
        assert await ctl(epoll, third, 1, op=2) == -12
        assert await ctl(epoll, fd, 4) == 0  # replacing needs no room
        assert await ctl(epoll, gone, 0, op=3) == 0
        assert await ctl(epoll, third, 1) == 0


async def test_wait_check_order():
    async with open_probe() as probe:
        epoll = await probe.call("spear_epoll_create")
        fd, _ = add(probe, IN)
        call = probe.call
        assert await call("spear_epoll_wait", 5, -1, -1, 0) == -14
        probe.put_u32(8, 7)
        assert await call("spear_epoll_wait", 5, -1, 8, 0) == -28
        assert probe.u32(8) == 8
        assert await call("spear_epoll_wait", 5, -1, 8, 0) == -9
        assert await call("spear_epoll_wait", fd, -1, 8, 0) == -9
        assert probe.u32(8) == 8
        assert await call("spear_epoll_wait", epoll, END + 1, 8, 0) == -14
        assert await probe.wait(epoll) == []
        await probe.watch(epoll, fd, IN)
        probe.put_u32(8, 16)
        assert await call("spear_epoll_wait", epoll, END - 7, 8, -1) == -14
        assert probe.u32(8) == 16
        assert await call("spear_epoll_wait", epoll, END - 8, 8, -1) == 1
        await call("spear_epoll_close", epoll)
        assert await probe.wait(epoll) == -9


async def test_records_are_ascending_masked_and_level_triggered():
    async with open_probe() as probe:
        epoll = await probe.call("spear_epoll_create")
        entries = [add(probe, IN | OUT | ERR) for _ in range(4)]
        for fd, _ in reversed(entries):
            assert await probe.watch(epoll, fd, IN | OUT | 0x7000_0000) == 0
        fds = [fd for fd, _ in entries]
        for _ in range(2):
            assert await probe.wait(epoll) == [(fd, IN | OUT) for fd in fds]
        assert await probe.wait(epoll, capacity=23) == [(fd, IN | OUT) for fd in fds[:2]]
        entries[0][1].bits = ERR
        assert await probe.wait(epoll) == [(fd, IN | OUT) for fd in fds[1:]]  # ERR only when asked for
        await probe.watch(epoll, fds[0], ERR, op=2)
        assert await probe.wait(epoll, capacity=8) == [(fds[0], ERR)]
        await probe.call("cchat_close", fds[0])
        assert await probe.wait(epoll, capacity=8) == [(fds[1], IN | OUT)]
        await probe.watch(epoll, fds[0], HUP, op=2)
        assert await probe.wait(epoll, capacity=8) == [(fds[0], HUP)]
        await probe.watch(epoll, fds[0], 0, op=3)
        assert await probe.wait(epoll, capacity=8) == [(fds[1], IN | OUT)]


async def test_record_bytes():
    async with open_probe() as probe:
        epoll = await probe.call("spear_epoll_create")
        add(probe)
        fd, _ = add(probe, IN | OUT)
        assert fd == 1002
        await probe.watch(epoll, fd, ALL_BITS)
        assert await probe.wait(epoll) == [(1002, 5)]
        assert probe.read(4096, 8) == bytes.fromhex("ea03000005000000")


async def test_timeouts():
    async with open_probe() as probe:
        epoll = await probe.call("spear_epoll_create")
        begin = trio.current_time()
        assert await probe.wait(epoll, 0) == []
        assert await probe.wait(epoll, 30) == []
        assert 0.03 <= trio.current_time() - begin < 5


async def test_a_change_wakes_a_wait_without_limit():
    async with open_probe() as probe, trio.open_nursery() as nursery:
        epoll = await probe.call("spear_epoll_create")
        fd, entry = add(probe)
        await probe.watch(epoll, fd, IN)

        async def later() -> None:
            await trio.sleep(0.01)
            probe.guest.fds.touch()  # a change that makes nothing ready
            await trio.sleep(0.01)
            entry.bits = IN
            probe.guest.fds.touch()

        nursery.start_soon(later)
        with trio.fail_after(5):
            assert await probe.wait(epoll, -1) == [(fd, IN)]


async def test_an_epoll_closed_during_a_wait():
    async with open_probe() as probe, trio.open_nursery() as nursery:
        epoll = await probe.call("spear_epoll_create")

        async def later() -> None:
            await trio.sleep(0.01)
            probe.guest.fds.close(epoll)

        nursery.start_soon(later)
        with trio.fail_after(5):
            assert await probe.wait(epoll, -1) == -9
        assert probe.u32(8) == 80  # untouched


async def test_a_wait_on_what_is_always_ready_lets_the_loop_run():
    async with open_probe() as probe:
        epoll = await probe.call("spear_epoll_create")
        fd, _ = add(probe, OUT)
        await probe.watch(epoll, fd, OUT)
        passes = 0

        async def count() -> None:
            nonlocal passes
            while True:
                await trio.lowlevel.checkpoint()
                passes += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for _ in range(50):
                assert await probe.wait(epoll, -1) == [(fd, OUT)]
            nursery.cancel_scope.cancel()
        assert passes >= 25  # each wait is at least one pass, in whatever order the loop takes the two tasks


async def test_several_epolls_and_closing_one():
    async with open_probe() as probe:
        first, second = await probe.call("spear_epoll_create"), await probe.call("spear_epoll_create")
        fd, entry = add(probe, IN)
        await probe.watch(first, fd, IN)
        await probe.watch(second, fd, IN)
        assert entry.watchers == {first, second}
        await probe.call("spear_epoll_close", first)
        assert entry.watchers == {second}
        assert await probe.wait(second) == [(fd, IN)]


async def test_flags():
    async with open_probe() as probe:
        fd, entry = add(probe)

        async def set_flags(text: str, target: int = fd) -> int:
            pointer, length = probe.put(20_000, text)
            probe.put_u32(8, length)
            return await probe.call("spear_fd_ctl", target, 1, pointer, 8)

        assert await probe.out("spear_fd_ctl", fd, 2) == b'{"flags":[]}'
        assert await set_flags('{"set":["O_NONBLOCK","X",3]}') == 0
        assert await probe.out("spear_fd_ctl", fd, 2) == b'{"flags":["O_NONBLOCK"]}'
        for harmless in ("{}", "[]", "null", '{"set":3,"clear":{"a":1}}', '"x"'):
            assert await set_flags(harmless) == 0
        assert entry.nonblock
        assert await set_flags('{"set":["O_NONBLOCK"],"clear":["O_NONBLOCK"]}') == 0
        assert not entry.nonblock
        assert await set_flags("{", 5) == -9  # the fd before the JSON
        assert await set_flags("{") == -22
        assert await set_flags("") == -22
        for command in (0, 6, -1):
            assert await probe.call("spear_fd_ctl", 5, command, -1, -1) == -22
        for command in (2, 3, 4, 5):
            assert await probe.call("spear_fd_ctl", 5, command, -1, -1) == -9
        await probe.call("cchat_close", fd)
        assert await set_flags('{"set":["O_NONBLOCK"]}') == 0
        assert await probe.out("spear_fd_ctl", fd, 4) == (
            b'{"closed":true,"flags":["O_NONBLOCK"],"kind":"Toggle","poll_mask":["EPOLLHUP"]}'
        )


def test_numbers_and_tombstones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fds_module, "CLOSED_FDS_KEPT", 3)
    table = FdTable(max_open=10)
    epoll = Epoll(table)
    table.add(epoll)
    watched = table.add(Toggle())
    epoll.set(table.get(watched), HUP)
    table.close(watched)
    fds = [table.add(Toggle()) for _ in range(5)]
    for fd in fds:
        assert table.close(fd) == 0
    for fd in fds[:2]:
        with pytest.raises(Refused):
            table.get(fd)
    for fd in fds[2:]:
        assert table.close(fd) == 0
    assert epoll.scan(10) == [(watched, HUP)]  # watched tombstones stay
    epoll.remove(watched)
    assert table.get(watched).closed
    table.close(table.add(Toggle()))
    with pytest.raises(Refused):
        table.get(fds[2])
    assert table.add(Toggle()) == 1008


async def test_watches_are_capped_over_all_epolls():
    async with open_probe(limits=Limits(watched_fds=3, watches=4)) as probe:
        first, second = [await probe.call("spear_epoll_create") for _ in range(2)]
        fds = [add(probe)[0] for _ in range(3)]
        for fd in fds:
            assert await probe.watch(first, fd, IN) == 0
        assert await probe.watch(second, fds[0], IN) == 0
        assert await probe.watch(second, fds[1], IN) == -12
        assert await probe.watch(second, fds[1], IN, op=2) == -12
        assert await probe.watch(second, fds[0], OUT, op=2) == 0  # replacing needs no room
        for fd in fds:
            await probe.call("cchat_close", fd)
        assert await probe.watch(second, fds[1], HUP) == -12  # a closed one takes room as long as it is watched
        assert await probe.wait(second) == []
        assert await probe.watch(first, fds[1], 0, op=3) == 0
        assert await probe.watch(second, fds[1], HUP) == 0
        await probe.call("spear_epoll_close", first)
        third = await probe.call("spear_epoll_create")
        assert await probe.watch(third, fds[1], HUP) == 0
        assert await probe.watch(third, fds[2], HUP) == 0
        assert await probe.watch(third, fds[0], HUP) == -12
        assert await probe.wait(third) == [(fds[1], HUP), (fds[2], HUP)]


def test_of_many_closed_descriptors_the_newest_are_known():
    table = FdTable(max_open=10)
    for _ in range(fds_module.CLOSED_FDS_KEPT + 50_000):
        table.close(table.add(Toggle()))
    assert len(table._entries) == fds_module.CLOSED_FDS_KEPT
    with pytest.raises(Refused):
        table.get(FIRST_FD + 49_999)
    assert table.get(FIRST_FD + 50_000).closed


def test_closing_all_when_it_makes_old_tombstones_go(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fds_module, "CLOSED_FDS_KEPT", 2)
    table = FdTable(max_open=10)
    epoll = Epoll(table)
    table.add(epoll)
    for _ in range(5):
        fd = table.add(Toggle())
        epoll.set(table.get(fd), HUP)
        table.close(fd)
    table.close_all()
    assert table.open_count == 0
    assert len(table._entries) == 2


def test_closing_all_at_the_cap():
    table = FdTable(max_open=3)
    for _ in range(3):
        table.add(Toggle())
    with pytest.raises(Refused) as refused:
        table.add(Toggle())
    assert refused.value.errno == -12
    table.close_all()
    assert table.open_count == 0


@settings(RELAXED, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "close", "watch", "unwatch", "bits"]),
            st.integers(0, 7),
            st.integers(0, 31),
        ),
        max_size=60,
    )
)
def test_a_scan_is_readiness_and_interest(steps: list[tuple[str, int, int]]):
    """Against a model of three dictionaries."""
    table = FdTable(max_open=100)
    epoll = Epoll(table)
    table.add(epoll)
    fds: list[int] = []
    bits: dict[int, int] = {}
    closed: set[int] = set()
    interest: dict[int, int] = {}
    for step, place, value in steps:
        before = table.changes
        if step == "add":
            fd = table.add(Toggle(value & (IN | OUT | ERR)))
            fds.append(fd)
            bits[fd] = value & (IN | OUT | ERR)
        elif not fds:
            continue
        else:
            fd = fds[place % len(fds)]
            entry = table.get(fd)
            assert isinstance(entry, Toggle)
            if step == "close":
                table.close(fd)
                assert table.changes > before or fd in closed
                closed.add(fd)
            elif step == "watch":
                epoll.set(entry, value)
                interest[fd] = value & ALL_BITS
            elif step == "unwatch":
                epoll.remove(fd)
                interest.pop(fd, None)
            else:
                entry.bits = bits[fd] = value & (IN | OUT | ERR)
        expected = [
            (fd, ready)
            for fd, wanted in sorted(interest.items())
            if (ready := (HUP if fd in closed else bits[fd]) & wanted)
        ]
        assert epoll.scan(1000) == expected
        assert epoll.scan(2) == expected[:2]
