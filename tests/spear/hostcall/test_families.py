"""emb_*, img_*, asr_*, tts_*: results, check orders, caps, and what the port is asked."""

from __future__ import annotations

import json

import pytest

from spear.hostcall import Limits
from spear.hostcall._limits import MIB
from tests.spear.hostcall.operations import ASYNC, STREAM, Operations, ask_json, new_request, raw_param, set_param
from tests.spear.hostcall.probe import PAGE, open_probe

END = 2 * PAGE
FAMILIES = ("emb", "img", "asr", "tts")
KINDS = {"emb": "Emb", "img": "Img", "asr": "Asr", "tts": "Tts"}


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_request_and_its_response(family):
    port = Operations()
    async with open_probe(operations=port) as probe:
        request = await probe.call(f"{family}_create")
        assert request == 1000
        assert await probe.call(f"{family}_write", request, *probe.put(1024, "hé")) == 3
        assert await probe.call(f"{family}_write", request, *probe.put(1024, "llo")) == 3
        assert await set_param(probe, family, request, "model", "small") == 0
        assert await set_param(probe, family, request, "knob", {"a": [1]}) == 0
        assert await ask_json(probe, f"{family}_ctl", request, 3) == {"input_bytes": 6, "inputs": 2, "state": "Open"}
        response = await probe.call(f"{family}_send", request, 1)
        assert response == 1001
        raw = await probe.out(f"{family}_recv", response)
        assert raw == '{"_spear":{"backend":"b","degraded":[],"model":"m"},"text":"hä"}'.encode()
        assert await probe.out(f"{family}_recv", response) == raw  # not consuming
        assert await probe.out(f"{family}_ctl", response, 2) == b'{"input_tokens":3}'
        status = await ask_json(probe, f"{family}_ctl", response, 3)
        assert status.pop("elapsed_ms") >= 0
        assert status == {"backend": "b", "queued_events": 0, "state": "Done"}
        assert await ask_json(probe, "spear_fd_ctl", request, 3) == {"kind": f"{KINDS[family]}Request"}
        assert await ask_json(probe, "spear_fd_ctl", response, 3) == {"kind": f"{KINDS[family]}Response"}
        assert await ask_json(probe, "spear_fd_ctl", response, 5) == {"input_tokens": 3}
        assert await ask_json(probe, "spear_fd_ctl", request, 5) == {}
        asked = port.asked[0]
        assert (asked.family, asked.fd, asked.params) == (family, request, {"model": "small", "knob": {"a": [1]}})
        if family == "asr":
            assert b"".join(asked.audio) == "héllo".encode()
        else:
            assert asked.texts == (("hé", "llo") if family == "emb" else ("héllo",))
        used = probe.guest.usage
        assert (used.requests, used.input_tokens, used.output_tokens, used.cost) == (1, 3, 2, 0.5)
        assert await probe.call(f"{family}_close", response) == 0
        assert await probe.out(f"{family}_recv", response) == -9
        assert await probe.call(f"{family}_send", request, 0) == 1002  # the inputs stayed
        assert port.asked[1].texts == asked.texts
        assert await probe.call(f"{family}_close", request) == 0
        assert await probe.call(f"{family}_send", request, 0) == -9
        held = probe.guest.holdings.bytes + probe.guest.audio_holdings.bytes
        assert held == len(raw)  # of the response that is still open


async def test_a_character_that_is_split_over_writes_is_joined():
    port = Operations()
    async with open_probe(operations=port) as probe:
        for family in ("img", "tts"):
            fd = await new_request(probe, family, "a")
            for byte in "ß".encode():
                assert await probe.call(f"{family}_write", fd, *probe.put(1024, bytes([byte]))) == 1
            assert await probe.call(f"{family}_send", fd, 0) > 0
            assert port.asked[-1].texts == ("aß",)
        fd = await new_request(probe, "emb", "a")
        assert await probe.call("emb_write", fd, *probe.put(1024, b"\xc3")) == 1
        assert await probe.call("emb_send", fd, 0) > 0
        assert port.asked[-1].texts == ("a", "\ufffd")  # bad bytes are no error


@pytest.mark.parametrize("family", FAMILIES)
async def test_write_check_order(family):
    limits = Limits(emb_input_bytes=100, media_write_bytes=100, prompt_bytes=200, tts_bytes=200)
    async with open_probe(operations=Operations(), limits=limits) as probe:
        fd = await probe.call(f"{family}_create")
        closed = await probe.call(f"{family}_create")
        await probe.call(f"{family}_close", closed)
        write = f"{family}_write"
        assert await probe.call(write, 5, -1, 101) == -14
        assert await probe.call(write, 5, END - 5, 6) == -14
        one_is_capped = family in {"emb", "asr"}
        assert await probe.call(write, 5, 0, 101) == (-22 if one_is_capped else -9)
        assert await probe.call(write, 5, 0, 0) == -9
        assert await probe.call(write, closed, 0, 1) == -9
        assert await probe.call(write, fd, 0, 0) == -22
        assert await probe.call(write, fd, END, 0) == -22
        assert await probe.call(write, fd, 0, 100) == 100
        assert (await ask_json(probe, f"{family}_ctl", fd, 3))["inputs"] == 1
        other = await probe.call("emb_create" if family != "emb" else "tts_create")
        assert await probe.call(write, other, 0, 1) == -9


async def test_totals_give_12_and_change_nothing():
    limits = Limits(emb_inputs=2, emb_bytes=10, prompt_bytes=10, tts_bytes=10, asr_bytes=10)
    async with open_probe(operations=Operations(), limits=limits) as probe:
        for family in FAMILIES:
            fd = await probe.call(f"{family}_create")
            assert await probe.call(f"{family}_write", fd, 0, 6) == 6
            assert await probe.call(f"{family}_write", fd, 0, 5) == -12
            assert await probe.call(f"{family}_write", fd, 0, 4) == 4
            assert await probe.call(f"{family}_write", fd, 0, 1) == -12
            assert (await ask_json(probe, f"{family}_ctl", fd, 3))["input_bytes"] == 10
        fd = await probe.call("emb_create")
        assert [await probe.call("emb_write", fd, 0, 1) for _ in range(3)] == [1, 1, -12]


async def test_what_a_guest_has_the_host_hold_is_capped():
    limits = Limits(held_bytes=3000, audio_held_bytes=100)
    async with open_probe(operations=Operations(), limits=limits) as probe:
        first, second = await probe.call("tts_create"), await probe.call("img_create")
        assert await probe.call("tts_write", first, 0, 2000) == 2000
        assert await probe.call("img_write", second, 0, 2000) == -12
        assert await set_param(probe, "img", second, "style", "x" * 300) == -12
        asr = [await probe.call("asr_create") for _ in range(2)]
        assert [await probe.call("asr_write", fd, 0, 60) for fd in asr] == [60, -12]
        assert await probe.call("tts_close", first) == 0
        assert await probe.call("img_write", second, 0, 2000) == 2000
        # A body that does not fit any more is an error of the response, not of the call.
        probe.guest.holdings.force(limits.held_bytes)
        response = await probe.call("img_send", second, 1)
        body = await ask_json(probe, "img_recv", response)
        assert body["error"]["code"] == "overloaded"
        probe.guest.holdings.force(-limits.held_bytes)


async def test_audio_of_several_blocks_comes_whole():
    port = Operations()
    async with open_probe(operations=port, pages=20) as probe:
        fd = await probe.call("asr_create")
        sound = bytes(range(256)) * 2048  # half a block
        for _ in range(5):
            assert await probe.call("asr_write", fd, *probe.put(PAGE, sound)) == len(sound)
        await probe.call("asr_send", fd, 0)
        assert b"".join(port.asked[0].audio) == sound * 5
        assert max(map(len, port.asked[0].audio)) <= 2 * MIB


@pytest.mark.parametrize("family", FAMILIES)
async def test_ctl_check_order(family):
    limits = Limits(param_bytes=100)
    async with open_probe(operations=Operations(), limits=limits) as probe:
        ctl = f"{family}_ctl"
        fd = await new_request(probe, family)
        response = await probe.call(f"{family}_send", fd, 0)
        session = await probe.call("cchat_create")
        probe.put_u32(8, 101)
        # SET_PARAM: length pointer, bytes, cap, fd, shape
        assert await probe.call(ctl, 5, 1, -1, END - 3) == -14
        assert await probe.call(ctl, 5, 1, -1, 8) == -14
        assert await probe.call(ctl, 5, 1, 0, 8) == -22
        probe.put_u32(8, 100)
        for wrong in (5, response, session):
            assert await probe.call(ctl, wrong, 1, 0, 8) == -9
        assert await probe.call(ctl, fd, 1, 0, 8) == -22
        probe.put_u32(8, 0)
        assert await probe.call(ctl, 5, 1, -1, 8) == -9  # no payload: its pointer is not looked at
        assert await probe.call(ctl, fd, 1, -1, 8) == -22
        probe.put_u32(8, 0xFFFF_FFFF)
        assert await probe.call(ctl, fd, 1, -1, 8) == -22
        # The others: fd, command, OUTBUF
        for cmd in (0, 4, 99, -1):
            for wrong in (5, session):
                assert await probe.call(ctl, wrong, cmd, -1, -1) == -9
            assert await probe.call(ctl, fd, cmd, -1, -1) == -22
            assert await probe.call(ctl, response, cmd, -1, -1) == -22
        assert await probe.call(ctl, fd, 2, -1, -1) == -9  # metrics are of a response
        assert await probe.call(ctl, fd, 3, 0, -1) == -14
        assert await probe.call(ctl, 5, 3, 0, -1) == -9
        probe.put_u32(8, 3)
        assert await probe.call(ctl, fd, 3, 0, 8) == -28
        assert probe.u32(8) == len('{"input_bytes":6,"inputs":1,"state":"Open"}')
        assert await probe.out(ctl, response, 2) == b"{}"  # without bit 1
        other = await probe.call("emb_create" if family != "emb" else "tts_create")
        assert await probe.call(ctl, other, 3, 4096, 8) == -9


async def test_recv_check_order():
    async with open_probe(operations=Operations()) as probe:
        fd = await new_request(probe, "tts")
        response = await probe.call("tts_send", fd, 0)
        assert await probe.call("tts_recv", 5, -1, -1) == -9
        assert await probe.call("tts_recv", fd, -1, -1) == -9
        assert await probe.call("asr_recv", response, -1, -1) == -9  # of another family
        assert await probe.call("cchat_recv", response, -1, -1) == -9
        assert await probe.call("tts_recv", response, 0, -1) == -14
        assert await probe.out("tts_recv", response, capacity=10) == -28
        assert probe.u32(8) > 10
        size = probe.u32(8)
        probe.put_u32(8, size)
        assert await probe.call("tts_recv", response, END - 3, 8) == -14
        assert isinstance(await probe.out("tts_recv", response, capacity=size), bytes)


@pytest.mark.parametrize("family", FAMILIES)
async def test_send_check_order(family):
    limits = Limits(in_flight=0, open_fds=2)
    streams = family in {"asr", "tts"}
    async with open_probe(operations=Operations(), limits=limits) as probe:
        fd = await probe.call(f"{family}_create")
        spare = await probe.call(f"{family}_create")
        send = f"{family}_send"
        assert await probe.call(send, 5, STREAM) == -9
        assert await probe.call(send, fd, STREAM) == -22  # no such flag, or no input
        assert await probe.call(send, fd, 0) == -22
        await probe.call(f"{family}_write", fd, *probe.put(1024, "x"))
        assert await probe.call(send, fd, STREAM) == (-11 if streams else -22)
        assert await probe.call(send, fd, STREAM | ASYNC) == (-11 if streams else -22)
        assert await probe.call(send, fd, ASYNC) == -11
        assert await probe.call(send, fd, 0) == -12  # a blocking send is not counted; no fd is left
        await probe.call(f"{family}_close", spare)
        assert await probe.call(send, fd, 2 | 16 | 0x40000000) == 1002  # bits that mean nothing
        assert probe.guest.requests.in_flight == 0


async def test_parameters_that_contradict():
    async with open_probe(operations=Operations()) as probe:
        inline = {"kind": "inline_base64", "mime": "image/png", "data": "aGFsbG8="}
        img = await new_request(probe, "img")
        assert await set_param(probe, "img", img, "mask", inline) == 0
        assert await probe.call("img_send", img, 0) == -22  # a mask of nothing
        assert await set_param(probe, "img", img, "image", inline) == 0
        assert await probe.call("img_send", img, 0) > 0
        asr = await new_request(probe, "asr")
        assert await set_param(probe, "asr", asr, "format", "pcm16") == 0
        assert await probe.call("asr_send", asr, 0) == -22  # no rate
        assert await set_param(probe, "asr", asr, "sample_rate_hz", 16000) == 0
        assert await probe.call("asr_send", asr, 0) > 0
        assert await set_param(probe, "asr", asr, "audio", inline) == 0
        assert await probe.call("asr_send", asr, 0) == -22  # both
        assert await set_param(probe, "asr", asr, "audio", None) == 0
        assert await probe.call("asr_send", asr, 0) > 0
        elsewhere = await probe.call("asr_create")
        assert await set_param(probe, "asr", elsewhere, "audio", inline) == 0
        assert await probe.call("asr_send", elsewhere, 0) > 0


async def test_families_that_are_off_and_forbidden():
    port = Operations(families=frozenset({"emb", "tts"}))
    port.allowed = lambda family: family == "emb"
    async with open_probe(operations=port, limits=Limits(open_fds=1)) as probe:
        assert await probe.call("img_create") == -38
        assert await probe.call("asr_create") == -38
        assert await probe.call("tts_create") == -13
        assert await probe.call("emb_create") == 1000
        assert await probe.call("emb_create") == -12  # the fd cap comes last
        assert await probe.call("img_create") == -38
        error = await ask_json(probe, "spear_last_error")
        assert (error["call"], error["errno"], error["code"]) == ("img_create", -38, "backend_not_enabled")
        # The others answer as always: there is no such fd.
        assert await probe.call("img_write", 1000, 0, 1) == -9
        assert await probe.call("img_send", 1000, 0) == -9


async def test_without_a_port_all_are_off():
    async with open_probe() as probe:
        assert [await probe.call(f"{family}_create") for family in FAMILIES] == [-38] * 4
        assert await probe.call("media_create", 0, 3) == -38


async def test_extra_parameters_are_counted_and_known_ones_are_not():
    async with open_probe(operations=Operations(), limits=Limits(extra_params=2, session_json_values=40)) as probe:
        fd = await new_request(probe, "tts")
        assert [await set_param(probe, "tts", fd, key, 1) for key in "abc"] == [0, 0, -12]
        assert await set_param(probe, "tts", fd, "a", 2) == 0
        assert await set_param(probe, "tts", fd, "voice", "v") == 0
        assert await set_param(probe, "tts", fd, "c", None) == 0  # resetting what is not there adds nothing
        assert await set_param(probe, "tts", fd, "a", None) == 0
        assert await set_param(probe, "tts", fd, "c", 3) == 0
        assert await set_param(probe, "tts", fd, "c", [1] * 50) == -12
        assert await raw_param(probe, "tts", fd, json.dumps({"key": "c", "value": [[]] * 200})) == -12
        assert await probe.call("tts_send", fd, 0) > 0
        assert probe.guest.operations.asked[0].params == {"b": 1, "voice": "v", "c": 3}
