"""media_*: results, check orders, read positions, caps, readiness."""

from __future__ import annotations

import hashlib

import pytest

from spear.hostcall import Limits
from spear.ir import ErrorCode
from tests.spear.hostcall.operations import ALL, MemoryMedia, Operations, ask_json, refusal
from tests.spear.hostcall.probe import PAGE, open_probe

END = 2 * PAGE
IN, OUT, HUP = 1, 4, 16
ANY = 0x1D


async def new_object(probe, mime="text/plain"):
    fd = await probe.call("media_create", *probe.put(256, mime))
    assert fd >= 1000, fd
    return fd


async def write(probe, fd, data):
    return await probe.call("media_write", fd, *probe.put(1024, data))


async def open_uri(probe, uri):
    return await probe.call("media_open", *probe.put(256, uri))


async def test_an_object_goes_in_and_comes_out():
    async with open_probe(operations=Operations()) as probe:
        fd = await new_object(probe, "text/plain;charset=utf-8")
        assert await ask_json(probe, "spear_fd_ctl", fd, 3) == {"kind": "Media"}
        assert await write(probe, fd, "hello ") == 6
        assert await write(probe, fd, "") == 0
        assert await write(probe, fd, "world") == 5
        ref = await ask_json(probe, "media_commit", fd)
        uri = ref["uri"]
        assert ref == {
            "kind": "sms_file",
            "mime": "text/plain;charset=utf-8",
            "sha256": hashlib.sha256(b"hello world").hexdigest(),
            "size": 11,
            "uri": uri,
        }
        assert await ask_json(probe, "media_commit", fd) == ref
        reading = await open_uri(probe, uri)
        assert [await probe.out("media_read", reading, capacity=n) for n in (4, 100, 1, 1)] == [
            b"hell",
            b"o world",
            b"",
            b"",
        ]
        assert await probe.call("media_close", reading) == 0
        assert await probe.call("media_close", fd) == 0
        assert probe.guest.operations.media.readers[0].closed
        assert not probe.guest.operations.media.writers[0].discarded


async def test_a_commit_that_finds_no_room_loses_nothing():
    async with open_probe(operations=Operations()) as probe:
        fd = await new_object(probe)
        assert await write(probe, fd, "x") == 1
        assert await probe.call("media_commit", fd, 0, END - 3) == -14
        assert probe.guest.operations.media.writers[0].ref is None  # a bad call changes nothing
        assert await write(probe, fd, "y") == 1
        assert await probe.out("media_commit", fd, capacity=3) == -28
        size = probe.u32(8)
        assert (await ask_json(probe, "media_commit", fd))["size"] == 2
        raw = await probe.out("media_commit", fd, capacity=size)
        assert isinstance(raw, bytes)
        assert len(raw) == size


async def test_create_check_order():
    port = Operations(families=frozenset())
    async with open_probe(operations=port, limits=Limits(open_fds=0)) as probe:
        assert await probe.call("media_create", END - 1, 2) == -14
        assert await probe.call("media_create", -1, 200) == -14
        assert await probe.call("media_create", 0, 128) == -22
        assert await probe.call("media_create", *probe.put(256, "nonsense")) == -38
        port.families = ALL
        assert await probe.call("media_create", *probe.put(256, "nonsense")) == -22
        port.media.max_objects = 0
        assert await probe.call("media_create", *probe.put(256, "a/b")) == -12
        port.media.max_objects = 1
        assert await probe.call("media_create", *probe.put(256, "a/b")) == -12
        assert port.media.writers[0].discarded  # there was no fd for it


@pytest.mark.parametrize(
    ("mime", "good"),
    [
        *((mime, True) for mime in ("a/b", "image/svg+xml", "audio/L16;rate=24000", "a/b; x=y", "a/" + "b" * 125)),
        *(
            (mime, False)
            for mime in (
                "",
                "a",
                "/b",
                "a/",
                "a b/c",
                "a/b/c",
                "a/b x",
                "ä/b",
                "a/b;\n",
                "a/b\n;x=y",
                "a/b\t;x",
                "a/b\0",
                " a/b",
            )
        ),
    ],
)
async def test_mime_types(mime, good):
    async with open_probe(operations=Operations()) as probe:
        fd = await probe.call("media_create", *probe.put(256, mime))
        assert fd == (1000 if good else -22)


async def test_write_check_order():
    limits = Limits(media_write_bytes=10)
    async with open_probe(operations=Operations(media=MemoryMedia(max_bytes=12)), limits=limits) as probe:
        fd = await new_object(probe)
        session = await probe.call("cchat_create")
        call = probe.call
        assert await call("media_write", 5, END - 9, 10) == -14
        assert await call("media_write", 5, -1, 11) == -14
        assert await call("media_write", 5, 0, 11) == -22
        for wrong in (5, session):
            assert await call("media_write", wrong, 0, 10) == -9
        assert await call("media_write", fd, 0, 10) == 10
        assert await call("media_write", fd, 0, 3) == -12
        assert await call("media_write", fd, 0, 2) == 2
        ref = await ask_json(probe, "media_commit", fd)
        assert ref["size"] == 12
        assert await call("media_write", fd, 0, 1) == -22  # sealed
        reading = await open_uri(probe, ref["uri"])
        assert await call("media_write", reading, 0, 1) == -22
        assert await call("media_commit", reading, 0, 8) == -22
        empty = await new_object(probe)
        assert await call("media_commit", empty, -1, -1) == -22  # no bytes
        assert await call("media_commit", 5, -1, -1) == -9


async def test_open_check_order():
    port = Operations(families=frozenset())
    port.media.put("there", b"x", "a/b")
    async with open_probe(operations=port, limits=Limits(open_fds=1)) as probe:
        assert await probe.call("media_open", END - 1, 2) == -14
        assert await probe.call("media_open", 0, 257) == -22
        assert await open_uri(probe, "nonsense") == -38
        port.families = ALL
        for bad in ("", "there", "smsfile://", "smsfile://a/b", "smsfile://../x", "file:///etc/passwd", "smsfile://a b",
                    "SMSFILE://there", "smsfile://there\n"):  # fmt: skip
            assert await open_uri(probe, bad) == -22, bad
        assert await open_uri(probe, "smsfile://elsewhere") == -13
        error = await ask_json(probe, "spear_last_error")
        assert (error["call"], error["errno"], error["fd"]) == ("media_open", -13, None)
        assert error["code"].startswith("media_not_")
        assert await open_uri(probe, "smsfile://there") == 1000
        assert await open_uri(probe, "smsfile://there") == -12
        assert port.media.readers[1].closed


async def test_read_check_order_and_position():
    port = Operations()
    port.media.put("there", bytes(range(200)), "a/b")
    async with open_probe(operations=port) as probe:
        fd = await open_uri(probe, "smsfile://there")
        writing = await new_object(probe)
        read = "media_read"
        assert await probe.call(read, 5, -1, -1) == -9
        assert await probe.call(read, writing, -1, -1) == -22
        assert await probe.call(read, fd, -1, END - 3) == -14
        probe.put_u32(8, 0)
        assert await probe.call(read, fd, -1, 8) == -22
        probe.put_u32(8, 50)
        assert await probe.call(read, fd, END - 49, 8) == -14  # the position stays
        assert await probe.out(read, fd, capacity=50) == bytes(range(50))
        probe.put_u32(8, 0xFFFF_FFFF)  # more than there is: what counts is the rest
        assert await probe.call(read, fd, END - 150, 8) == 150
        assert probe.read(END - 150, 150) == bytes(range(50, 200))
        probe.put_u32(8, 10)
        assert await probe.call(read, fd, 4096, 8) == 0
        assert probe.u32(8) == 0


async def test_one_read_gives_at_most_a_mebibyte():
    port = Operations()
    port.media.put("large", bytes(3 << 19), "a/b")
    async with open_probe(operations=port, pages=40) as probe:
        fd = await open_uri(probe, "smsfile://large")
        probe.put_u32(8, 2 << 20)
        assert await probe.call("media_read", fd, PAGE, 8) == 1 << 20
        assert await probe.call("media_read", fd, PAGE, 8) == 1 << 19


async def test_readiness():
    port = Operations(media=MemoryMedia(max_bytes=8))
    async with open_probe(operations=port, limits=Limits(media_bytes=8)) as probe:
        epfd = await probe.call("spear_epoll_create")
        fd = await new_object(probe)
        await probe.watch(epfd, fd, ANY)
        assert await probe.wait(epfd) == [(fd, OUT)]
        assert await write(probe, fd, "1234567") == 7
        assert await write(probe, fd, "89") == -12
        assert await probe.wait(epfd) == []  # at a cap
        assert await write(probe, fd, "8") == 1
        assert await probe.wait(epfd) == []  # full
        ref = await ask_json(probe, "media_commit", fd)
        assert await probe.wait(epfd) == []
        reading = await open_uri(probe, ref["uri"])
        await probe.watch(epfd, reading, ANY)
        assert await probe.wait(epfd) == [(reading, IN)]
        await probe.call("media_close", fd)
        await probe.call("media_close", reading)
        assert await probe.wait(epfd) == [(fd, HUP), (reading, HUP)]


async def test_what_is_not_committed_goes_with_its_descriptor():
    port = Operations()
    async with open_probe(operations=port) as probe:
        for _ in range(2):
            await write(probe, await new_object(probe), "x")
        await probe.call("media_close", 1000)
        assert [writer.discarded for writer in port.media.writers] == [True, False]
    assert [writer.discarded for writer in port.media.writers] == [True, True]  # the guest has ended


@pytest.mark.parametrize(
    ("code", "errno"),
    [(ErrorCode.MEDIA_TOO_LARGE, -12), (ErrorCode.OVERLOADED, -12), (ErrorCode.INTERNAL, -5)],
)
async def test_a_store_that_fails(code, errno):
    def fail(*arguments):
        raise refusal(code, "no room here")

    port = Operations()
    port.media.put("there", b"x", "a/b")
    async with open_probe(operations=port) as probe:
        fd, reading = await new_object(probe), await open_uri(probe, "smsfile://there")
        await write(probe, fd, "x")
        port.media.writers[0].append = port.media.writers[0].commit = fail
        port.media.readers[0].peek = port.media.create = port.media.open = fail
        assert await write(probe, fd, "x") == errno
        assert await probe.out("media_commit", fd) == errno
        assert await probe.out("media_read", reading) == errno
        assert await open_uri(probe, "smsfile://there") == errno
        assert await probe.call("media_create", *probe.put(256, "a/b")) == errno
        error = await ask_json(probe, "spear_last_error")
        assert (error["code"], error["message"], error["errno"]) == (code.value, "no room here", errno)
