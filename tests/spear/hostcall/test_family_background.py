"""X_send with ASYNC and STREAM: readiness at each step, events, the cap, deadlines, closing, and the guest's end."""

from __future__ import annotations

import json

import pytest
import trio

from spear.hostcall import FamilyReply, Limits
from spear.hostcall._json import dump
from spear.hostcall._large_body import BodyTooLarge, encode_body
from tests.spear.hostcall.operations import (
    ASYNC,
    BODY,
    FAILED,
    METRICS,
    OK,
    STREAM,
    Operations,
    ask_json,
    new_request,
    set_param,
    settle,
)
from tests.spear.hostcall.probe import PAGE, Streaming, open_probe, success

IN, HUP = 1, 16
ANY = 0x1D
END = 2 * PAGE


async def watched(probe, fd):
    epfd = await probe.call("spear_epoll_create")
    await probe.watch(epfd, fd, ANY)
    return epfd


@pytest.mark.parametrize("family", ["emb", "img", "asr", "tts"])
async def test_async(family):
    port = Operations()
    port.gate = trio.Event()
    async with open_probe(operations=port) as probe:
        fd = await new_request(probe, family)
        response = await probe.call(f"{family}_send", fd, ASYNC | METRICS)
        epfd = await watched(probe, response)
        await settle(probe)
        assert port.running == 1
        assert await probe.wait(epfd) == []
        assert await probe.out(f"{family}_recv", response) == -11
        assert await probe.out(f"{family}_ctl", response, 2) == b"{}"
        status = await ask_json(probe, f"{family}_ctl", response, 3)
        assert (status["state"], status["backend"]) == ("Pending", None)
        assert await probe.call(f"{family}_write", fd, *probe.put(1024, "more")) == 4  # the request stays open
        port.gate.set()
        assert await probe.wait(epfd, 1000) == [(response, IN)]
        assert await ask_json(probe, f"{family}_recv", response) == BODY
        assert await ask_json(probe, f"{family}_recv", response) == BODY
        assert await probe.wait(epfd) == [(response, IN)]  # it stays
        assert await probe.out(f"{family}_ctl", response, 2) == b'{"input_tokens":3}'
        assert (await ask_json(probe, f"{family}_ctl", response, 3))["state"] == "Done"
        await probe.call(f"{family}_close", response)
        assert await probe.wait(epfd) == [(response, HUP)]
        asked = port.asked[0]  # what was there at the send
        assert (asked.texts == ("say it",)) or asked.audio == (b"say it",)
        assert probe.guest.requests.in_flight == 0


@pytest.mark.parametrize("family", ["asr", "tts"])
@pytest.mark.parametrize("flags", [STREAM, STREAM | ASYNC])
async def test_stream(family, flags):
    port = Operations()
    port.gate = trio.Event()
    async with open_probe(operations=port) as probe:
        fd = await new_request(probe, family)
        response = await probe.call(f"{family}_send", fd, flags | METRICS)
        epfd = await watched(probe, response)
        await settle(probe)
        assert await probe.wait(epfd) == []
        assert await probe.out(f"{family}_recv", response) == -11
        assert (await ask_json(probe, f"{family}_ctl", response, 3))["state"] == "Pending"
        port.gate.set()
        assert await probe.wait(epfd, 1000) == [(response, IN)]
        await settle(probe)
        status = await ask_json(probe, f"{family}_ctl", response, 3)
        assert (status["state"], status["backend"], status["queued_events"]) == ("Done", "b", 4)
        assert await probe.out(f"{family}_ctl", response, 2) == b'{"input_tokens":3}'
        assert await probe.out(f"{family}_recv", response, capacity=3) == -28  # loses nothing
        probe.put_u32(8, 1000)
        assert await probe.call(f"{family}_recv", response, END - 3, 8) == -14
        events = [await ask_json(probe, f"{family}_recv", response) for _ in range(4)]
        assert events == [
            {"backend": "b", "model": "m", "seq": 1, "type": "started"},
            {"delta": "w0 ", "seq": 2, "type": "content_delta"},
            {"delta": "w1 ", "seq": 3, "type": "content_delta"},
            {"response": BODY, "seq": 4, "type": "completed"},
        ]
        assert await probe.wait(epfd) == [(response, IN | HUP)]
        assert await probe.out(f"{family}_recv", response) == b""
        assert await probe.out(f"{family}_recv", response) == b""
        assert probe.guest.requests.in_flight == 0


async def test_errors_are_bodies_and_events():
    async with open_probe(operations=Operations(FAILED)) as probe:
        fd = await new_request(probe, "tts")
        error = {
            "attempts": 0, "code": "backend_error", "message": "down", "operation": None, "rejected": {},
            "required": [], "retry_after_ms": None, "retryable": True,
        }  # fmt: skip
        for flags in (METRICS, ASYNC | METRICS):
            response = await probe.call("tts_send", fd, flags)
            await settle(probe)
            assert await ask_json(probe, "tts_recv", response) == {"error": error}
            assert await probe.out("tts_ctl", response, 2) == b"{}"
            status = await ask_json(probe, "tts_ctl", response, 3)
            assert (status["state"], status["backend"]) == ("Failed", "b")
            last = await ask_json(probe, "spear_last_error")
            assert last == {**error, "call": "tts_send", "errno": 0, "fd": response}
        response = await probe.call("tts_send", fd, STREAM)
        await settle(probe)
        events = [await ask_json(probe, "tts_recv", response) for _ in range(4)]
        assert events[-1] == {"error": error, "seq": 4, "type": "error"}
        assert await probe.out("tts_recv", response) == b""
        assert (await ask_json(probe, "tts_ctl", response, 3))["state"] == "Failed"


@pytest.mark.parametrize("body", [{"text": "x" * 2000}, {"text": float("nan"), "big": 2**80}])
async def test_a_body_that_cannot_be_given_out_is_a_backend_error(body):
    async with open_probe(operations=Operations(FamilyReply(body)), limits=Limits(body_bytes=1000)) as probe:
        fd = await new_request(probe, "asr")
        for flags in (0, ASYNC):
            response = await probe.call("asr_send", fd, flags)
            await settle(probe)
            assert (await ask_json(probe, "asr_recv", response))["error"]["code"] == "backend_error"
        response = await probe.call("asr_send", fd, STREAM)
        await settle(probe)
        events = [await ask_json(probe, "asr_recv", response) for _ in range(4)]
        assert (events[-1]["type"], events[-1]["error"]["code"]) == ("error", "backend_error")


@pytest.mark.parametrize("rows", [0, 1, 3, 41])
async def test_a_body_with_many_numbers_is_made_piece_by_piece(rows):
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    row = tuple(n / 7 for n in range(10_000))
    body = {"_spear": {"model": '"vectors":null'}, "dimensions": 10_000, "vectors": (row,) * rows}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        encoded = await encode_body(body, 1 << 24)
        assert encoded == dump(body)
        assert turns >= rows // 2 - 2
        with pytest.raises(BodyTooLarge):
            await encode_body(body, len(encoded) - 1)
        assert await encode_body(body, len(encoded)) == encoded
        nursery.cancel_scope.cancel()


async def test_the_cap_counts_until_the_end_is_queued():
    port = Operations()
    port.gate = trio.Event()
    async with open_probe(operations=port, limits=Limits(in_flight=3)) as probe:
        fd = await new_request(probe, "tts")
        chat = await probe.call("cchat_create")
        assert chat > 0
        responses = [await probe.call("tts_send", fd, flags) for flags in (ASYNC, STREAM, ASYNC, STREAM, ASYNC)]
        assert responses[3:] == [-11, -11]
        await probe.call("tts_close", responses[0])
        await settle(probe)
        again = await probe.call("tts_send", fd, ASYNC)
        assert again > 0
        port.gate.set()
        await settle(probe)
        assert probe.guest.requests.in_flight == 0  # nothing was read yet
        assert await probe.call("tts_send", fd, ASYNC) > 0


@pytest.mark.parametrize("flags", [ASYNC, STREAM])
async def test_closing_the_response_cancels_the_request(flags):
    port = Operations()
    port.gate = trio.Event()
    async with open_probe(operations=port) as probe:
        fd = await new_request(probe, "asr")
        response = await probe.call("asr_send", fd, flags)
        await settle(probe)
        assert port.running == 1
        await probe.call("cchat_close", response)  # any close
        await settle(probe)
        assert port.running == 0
        assert probe.guest.requests.in_flight == 0
        assert await probe.out("asr_recv", response) == -9


async def test_closing_the_request_does_not():
    port = Operations()
    port.gate = trio.Event()
    async with open_probe(operations=port) as probe:
        fd = await new_request(probe, "emb")
        response = await probe.call("emb_send", fd, ASYNC)
        await probe.call("emb_close", fd)
        port.gate.set()
        await settle(probe)
        assert await ask_json(probe, "emb_recv", response) == BODY


@pytest.mark.parametrize("flags", [ASYNC, STREAM])
async def test_the_end_of_the_guest_ends_its_requests(flags):
    port = Operations()
    port.gate = trio.Event()
    async with open_probe(operations=port) as probe:
        fd = await new_request(probe, "asr")
        assert await probe.call("asr_send", fd, flags) > 0
        await settle(probe)
        assert port.running == 1
    assert port.running == 0


async def test_a_guest_that_does_not_read_stops_the_stream():
    port = Operations(deltas=5000)
    async with open_probe(operations=port) as probe:
        fd = await new_request(probe, "tts")
        response = await probe.call("tts_send", fd, STREAM)
        for _ in range(10):
            await settle(probe)
        stuck = port.told
        assert stuck <= 1024
        assert (await ask_json(probe, "tts_ctl", response, 3))["state"] == "Streaming"
        seen = 0
        epfd = await watched(probe, response)
        while await probe.wait(epfd, 1000) == [(response, IN)]:
            event = await ask_json(probe, "tts_recv", response)
            seen += 1
            assert event["seq"] == seen
        assert (seen, event["type"]) == (5002, "completed")


@pytest.mark.parametrize("flags", [ASYNC, STREAM])
async def test_timeout_ms_bounds_the_whole_request(flags):
    port = Operations()
    port.gate = trio.Event()
    async with open_probe(operations=port) as probe:
        fd = await new_request(probe, "asr")
        assert await set_param(probe, "asr", fd, "timeout_ms", 30) == 0
        response = await probe.call("asr_send", fd, flags)
        epfd = await watched(probe, response)
        assert await probe.wait(epfd, 5000) == [(response, IN)]
        told = await ask_json(probe, "asr_recv", response)
        assert told["error"]["code"] == "timeout"
        assert port.running == 0


async def test_time_in_which_the_guest_does_not_read_counts():
    async with open_probe(operations=Operations(deltas=5000)) as probe:
        fd = await new_request(probe, "tts")
        assert await set_param(probe, "tts", fd, "timeout_ms", 100) == 0
        response = await probe.call("tts_send", fd, STREAM)
        await trio.sleep(0.2)
        while (raw := await probe.out("tts_recv", response)) != b"":
            assert isinstance(raw, bytes)
            event = json.loads(raw)
        assert (event["type"], event["error"]["code"]) == ("error", "timeout")


async def test_several_at_once_in_one_epoll():
    port = Operations(OK)
    async with open_probe(operations=port) as probe:
        epfd = await probe.call("spear_epoll_create")
        waiting = {}
        for family, flags in (("emb", ASYNC), ("img", ASYNC), ("asr", STREAM), ("tts", STREAM), ("tts", ASYNC)):
            response = await probe.call(f"{family}_send", await new_request(probe, family), flags)
            waiting[response] = family, flags
            await probe.watch(epfd, response, ANY)
        ended = []
        with trio.fail_after(5):
            while waiting:
                for fd, bits in await probe.wait(epfd, 1000):
                    assert bits == IN
                    family, flags = waiting[fd]
                    told = await ask_json(probe, f"{family}_recv", fd)
                    if flags == ASYNC or told["type"] == "completed":
                        ended.append(family)
                        await probe.call(f"{family}_close", fd)
                        await probe.watch(epfd, fd, 0, op=3)
                        del waiting[fd]
        assert sorted(ended) == ["asr", "emb", "img", "tts", "tts"]


async def test_large_requests_under_way_count_as_held():
    port = Operations()
    port.gate = trio.Event()
    mib = 1 << 20
    async with open_probe(operations=port, limits=Limits(held_bytes=4 * mib), pages=40) as probe:
        fd = await new_request(probe, "emb")
        assert await probe.call("emb_write", fd, 65536, mib) == mib
        held = probe.guest.holdings.bytes
        sent = [await probe.call("emb_send", fd, ASYNC) for _ in range(4)]
        await settle(probe)
        assert port.running == probe.guest.requests.in_flight == 2
        for refused in sent[2:]:
            body = await ask_json(probe, "emb_recv", refused)
            assert body["error"]["code"] == "overloaded"
            assert await probe.call("emb_close", refused) == 0
        assert await probe.call("emb_close", sent[0]) == 0
        await settle(probe)
        port.gate.set()
        await settle(probe)
        assert await ask_json(probe, "emb_recv", sent[1]) == BODY
        assert await probe.call("emb_close", sent[1]) == 0
        assert probe.guest.holdings.bytes == held
        again = await probe.call("emb_send", fd, ASYNC)
        await settle(probe)
        assert await ask_json(probe, "emb_recv", again) == BODY


@pytest.mark.parametrize("flags", [ASYNC, STREAM, ASYNC | 2, STREAM | 2])
async def test_large_chats_under_way_count_as_held(flags):
    gate, mib = trio.Event(), 1 << 20
    chat = Streaming([gate, success("ok")])
    async with open_probe(chat, limits=Limits(held_bytes=5 * mib), pages=40) as probe:
        fd = await probe.call("cchat_create")
        role = probe.put(256, "user")
        assert await probe.call("cchat_write_msg", fd, *role, 65536, mib + 100) == 0
        held = probe.guest.holdings.bytes
        sent = []
        for _ in range(5):
            sent.append(await probe.call("cchat_send", fd, flags))
            if flags & 2:  # a loop keeps its session to itself
                break
        await settle(probe)
        assert len(chat.asked) == min(3, len(sent))
        for refused in sent[3:]:
            told = await ask_json(probe, "cchat_recv", refused)
            assert "the guest has the host hold too much" in json.dumps(told)
        gate.set()
        await settle(probe)
        for response in sent:
            assert await probe.call("cchat_close", response) == 0
        await settle(probe)
        assert probe.guest.holdings.bytes - held < 1000  # what a loop has appended
        assert await probe.call("cchat_write_msg", fd, *role, 65536, 1) == 0
