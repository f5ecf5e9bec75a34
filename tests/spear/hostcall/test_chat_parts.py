"""cchat_write_parts, and spear_capabilities without a runtime."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.hostcall import Limits, Offer
from spear.hostcall._chat_parts import parse_parts
from spear.hostcall._errno import Refused
from spear.hostcall._operation_port import NO_OPERATIONS
from spear.hostcall._session import ChatSession
from spear.ir import CallerError, ErrorCode, StoredMedia, make_error
from spear.normalize import ChatSession as SaidSession
from spear.normalize import request_from_session
from tests.spear.hostcall.probe import PAGE, RELAXED, Probe, Streaming, open_probe, success
from tests.spear.hostcall.test_chat_stream import settle

END = 2 * PAGE
KNOWN = StoredMedia(uri="smsfile://known", mime="image/png", size=3, sha256="0" * 64)
PNG = {"kind": "inline_base64", "mime": "image/png", "data": "QUJD"}
TEXT = {"type": "text", "text": "look: "}
IMAGE = {"type": "image", "media": PNG, "detail": "low"}
AUDIO = {"type": "audio", "media": {"kind": "inline_base64", "mime": "Audio/wav", "data": ""}}


class Store:
    """A media port of one object, in memory; `room` is how many more may be made. It is no store."""

    def __init__(self) -> None:
        self.room = 1
        self.stored: list[bytes] = []
        self.discarded = 0

    def create(self, mime: str) -> Any:
        if not self.room:
            raise CallerError(make_error(ErrorCode.MEDIA_TOO_LARGE, "full"))
        self.room -= 1
        return Writer(self, mime)

    def open(self, uri: str) -> Any:
        raise AssertionError("nobody opens")

    def find(self, uri: str) -> StoredMedia | None:
        return KNOWN if uri == KNOWN.uri else None

    def may_fetch(self, url: str) -> bool:
        return url.startswith("https://ok.example/")


class Writer:
    def __init__(self, store: Store, mime: str) -> None:
        self._store, self._mime, self._data, self._done = store, mime, b"", False

    def append(self, data: bytes) -> None:
        self._data += data

    def commit(self) -> StoredMedia:
        self._done = True
        self._store.stored.append(self._data)
        return StoredMedia(uri="smsfile://new", mime=self._mime, size=len(self._data), sha256="1" * 64)

    def discard(self) -> None:
        self._store.discarded += not self._done


class Operations(type(NO_OPERATIONS)):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.media = Store()


async def with_store(probe: Probe) -> tuple[int, Store]:
    operations = Operations()
    probe.guest.operations = operations
    return await probe.call("cchat_create"), operations.media


async def parts(probe: Probe, fd: int, value: Any, role: str = "user") -> int:
    text = value if isinstance(value, str | bytes) else json.dumps(value)
    return await probe.call("cchat_write_parts", fd, *probe.put(256, role), *probe.put(2048, text))


def said(probe: Probe, fd: int) -> list[dict[str, Any]]:
    return probe.guest.fds.open(fd, ChatSession).messages


async def test_parts_reach_the_request():
    chat = Streaming([success()])
    async with open_probe(chat) as probe:
        fd, _ = await with_store(probe)
        stored = {"type": "image", "media": {"kind": "sms_file", "uri": KNOWN.uri, "mime": "text/plain", "size": 9}}
        url = {"type": "image", "media": {"kind": "http_url", "url": "https://ok.example/a.png", "mime": "image/png"}}
        assert await parts(probe, fd, [TEXT, IMAGE, AUDIO, stored, url]) == 0
        assert await parts(probe, fd, [TEXT, {"type": "text", "text": "there"}], role="system") == 0
        await probe.call("cchat_send", fd, 0)
        [asked] = chat.asked
        request = request_from_session(SaidSession(fd, asked.messages, [], {}), task_id=None)
        first, second = request.payload.messages  # type: ignore[union-attr]
        assert [part.type for part in first.content_parts] == ["text", "image", "audio", "image", "image"]
        assert first.content_parts[1].detail == "low"
        assert first.content_parts[3].media == KNOWN
        assert (second.role, second.content, second.content_parts) == ("system", "look: there", None)
        assert set(request.requirements.required_features) == {"supports_image_input", "supports_audio_input"}


async def test_check_order():
    async with open_probe(limits=Limits(role_bytes=4, message_bytes=200, session_messages=1)) as probe:
        fd, _ = await with_store(probe)
        call = probe.call
        probe.put(64, json.dumps([TEXT]))
        size = len(json.dumps([TEXT]))
        assert await call("cchat_write_parts", 5, -1, 99, -1, 999) == -14
        assert await call("cchat_write_parts", 5, 0, 99, END - 5, 999) == -14  # both ranges before both caps
        assert await call("cchat_write_parts", 5, 0, 5, 64, size) == -22
        assert await call("cchat_write_parts", 5, 0, 4, 64, 201) == -22
        assert await call("cchat_write_parts", 5, 0, 4, 64, 3) == -9  # before the shape
        assert await call("cchat_write_parts", fd, 0, 4, 64, 3) == -22
        assert await call("cchat_write_parts", fd, 0, 4, 64, size) == 0
        unknown = {"type": "image", "media": {"kind": "sms_file", "uri": "smsfile://other"}}
        assert await parts(probe, fd, [unknown, {"type": "nix"}], "u") == -22
        assert await parts(probe, fd, [unknown], "u") == -13  # media before the caps
        assert await parts(probe, fd, [TEXT], "u") == -12
        closed = await call("cchat_create")
        await call("cchat_close", closed)
        assert await call("cchat_write_parts", closed, 0, 4, 64, size) == -9
        assert len(said(probe, fd)) == 1


async def test_an_asynchronous_loop_holds_the_session():
    async with open_probe(Streaming([1.0, success()])) as probe:
        fd, _ = await with_store(probe)
        await probe.call("cchat_send", fd, 2 | 8)
        assert await parts(probe, fd, "not json") == -11  # state before shape
        assert await parts(probe, 5, [TEXT]) == -9
        await settle()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "{}",
        "null",
        '"text"',
        [],
        [TEXT] * 65,
        [None],
        ["text"],
        [{}],
        [{"type": "text"}],
        [{"type": "text", "text": 1}],
        [{"type": "text", "text": "a", "more": 1}],
        [{"type": "video", "media": PNG}],
        [{"type": "image"}],
        [{"type": "image", "media": PNG, "detail": "huge"}],
        [{"type": "image", "media": PNG, "detail": None}],
        [{"type": "image", "media": PNG, "text": "a"}],
        [{"type": "audio", "media": PNG}],
        [{**AUDIO, "detail": "low"}],
        [{**AUDIO, "type": "image"}],
        [{"type": "image", "media": "smsfile://known"}],
        [{"type": "image", "media": {"kind": "inline_base64", "mime": "image/png", "data": "%%"}}],
        [{"type": "image", "media": {"kind": "inline_base64", "data": "QUJD"}}],
        [{"type": "image", "media": {"kind": "http_url", "url": "https://ok.example/a.png"}}],
        [{"type": "image", "media": {"kind": "http_url", "url": "ftp://ok.example/a", "mime": "image/png"}}],
        [{"type": "audio", "media": {"kind": "sms_file", "uri": "smsfile://known"}}],  # which is an image
        "[" * 200 + "]" * 200,
    ],
)
async def test_other_shapes(value: Any):
    async with open_probe() as probe:
        fd, _ = await with_store(probe)
        assert await parts(probe, fd, value) == -22
        assert said(probe, fd) == []
        assert probe.guest.holdings.bytes == 0


@pytest.mark.parametrize(
    "media",
    [
        {"kind": "sms_file", "uri": "smsfile://other"},
        {"kind": "http_url", "url": "https://elsewhere.example/a.png", "mime": "image/png"},
    ],
)
async def test_media_that_are_not_the_tasks(media: Any):
    async with open_probe() as probe:
        fd, _ = await with_store(probe)
        assert await parts(probe, fd, [TEXT, {"type": "image", "media": media}]) == -13
        raw = await probe.out("spear_last_error")
        assert isinstance(raw, bytes)
        assert json.loads(raw)["code"] == "media_not_allowed"
        assert said(probe, fd) == []


async def test_64_parts():
    async with open_probe() as probe:
        fd, _ = await with_store(probe)
        assert await parts(probe, fd, [TEXT] * 64) == 0
        assert said(probe, fd)[0]["content"] == "look: " * 64


async def test_large_inline_data_is_stored():
    data = base64.b64encode(b"z" * 20).decode()
    large = {"type": "image", "media": {"kind": "inline_base64", "mime": "image/gif", "data": data}}
    async with open_probe(limits=Limits(inline_media_bytes=19, session_messages=1)) as probe:
        fd, store = await with_store(probe)
        assert await parts(probe, fd, [IMAGE, large, large]) == -12  # there is room for one object
        assert (store.stored, store.discarded, said(probe, fd)) == ([], 1, [])
        store.room = 1
        assert await parts(probe, fd, [IMAGE, large]) == 0
        assert store.stored == [b"z" * 20]
        media = said(probe, fd)[0]["content_parts"][1]["media"]
        assert media == {
            "kind": "sms_file",
            "uri": "smsfile://new",
            "mime": "image/gif",
            "size": 20,
            "sha256": "1" * 64,
        }
        store.room = 1
        assert await parts(probe, fd, [large]) == -12  # of the session: nothing is stored
        assert len(store.stored) == 1
        await probe.call("cchat_close", fd)
        assert probe.guest.holdings.bytes == 0


async def test_large_objects_of_chats_under_way_count_as_held():
    async with open_probe(limits=Limits(inline_media_bytes=19, held_bytes=5 << 20)) as probe:
        fd, store = await with_store(probe)
        store.room = 1
        large = {**IMAGE, "media": {**PNG, "data": base64.b64encode(b"z" * 20).decode()}}
        assert await parts(probe, fd, [large]) == 0
        session = probe.guest.fds.get(fd)
        assert session.media_bytes == 20
        session.media_bytes = 2 << 20  # as if it were one of two mebibytes
        sent = [await probe.call("cchat_send", fd, 8) for _ in range(3)]
        assert probe.guest.requests.in_flight == 2
        assert b"hold too much" in await probe.out("cchat_recv", sent[2])
        await trio.testing.wait_all_tasks_blocked()
        assert [await probe.call("cchat_close", each) for each in (*sent, fd)] == [0] * 4
        assert probe.guest.holdings.bytes == session.media_bytes == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "media", "detail", "kind", "uri", "mime", "data"]), inner)
    ),
    max_leaves=12,
)


@settings(RELAXED, max_examples=50)
@given(value=st.lists(JSON | st.sampled_from([TEXT, IMAGE, AUDIO]), max_size=4), noise=st.binary(max_size=12))
def test_any_json_is_parts_or_refused(value: Any, noise: bytes):
    for text in (json.dumps(value).encode(), json.dumps(value).encode()[: len(noise)] + noise):
        errno, found = parsed(text)
        assert errno in {0, -22}
        assert errno or 1 <= len(found) <= 64
        assert all(part["type"] in {"text", "image", "audio"} for part in found)


def parsed(text: bytes) -> tuple[int, list[dict[str, Any]]]:
    try:
        return 0, parse_parts(text)
    except Refused as refused:
        return refused.errno, []


async def test_capabilities():
    async with open_probe() as probe:
        raw = await probe.out("spear_capabilities")
        assert isinstance(raw, bytes)
        told = json.loads(raw)
        assert list(told) == ["features", "limits", "models", "operations"]
        assert (told["features"], told["models"], told["operations"]) == ({}, {}, [])
        assert told["limits"] == {
            "max_asr_bytes": 67108864,
            "max_body_bytes": 16777216,
            "max_emb_inputs": 2048,
            "max_event_queue_bytes": 4194304,
            "max_fds": 1024,
            "max_inflight": 32,
            "max_media_bytes": 67108864,
            "max_media_task_bytes": 536870912,
            "max_message_bytes": 4194304,
            "max_prompt_bytes": 131072,
            "max_rt_session_ms": 3600000,
            "max_rt_sessions": 4,
            "max_session_bytes": 16777216,
            "max_tts_bytes": 262144,
        }
        assert await probe.out("spear_capabilities", capacity=len(raw) - 1) == -28
        assert probe.u32(8) == len(raw)
        probe.guest.offer = lambda: Offer(["a"], {"a": ["f"]}, {"a": []}, {"max_media_bytes": 5})
        raw = await probe.out("spear_capabilities")
        assert b'"max_media_bytes":5,' in raw  # type: ignore[operator]
        assert raw.startswith(b'{"features":{"a":["f"]},"limits":')  # type: ignore[union-attr]
        assert raw.endswith(b'"models":{"a":[]},"operations":["a"]}')  # type: ignore[union-attr]
