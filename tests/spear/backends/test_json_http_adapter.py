"""Kind `json_http`, against a server whose words nobody else uses."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.backends import Host, find_kind
from spear.backends.json_http._pointer import MISSING, read_pointer
from spear.backends.json_http._template import read_body
from spear.ir import (
    BackendError,
    CallerError,
    ChatMessage,
    ContentDelta,
    Degradation,
    EmbeddingsRequest,
    EmbeddingsResult,
    ErrorCode,
    Generation,
    ImageRequest,
    ImageResult,
    InlineMedia,
    Operation,
    RequestEnvelope,
    RoutingError,
    SpeechToTextRequest,
    SpeechToTextResult,
    Started,
    StoredMedia,
    TextToSpeechRequest,
    TextToSpeechResult,
    UsageEvent,
    dump_json,
)
from spear.media import MediaAccess, MediaBytes
from spear.secrets import Secret
from tests.servers._odd_dialect import png
from tests.servers._operations import wav
from tests.servers.dialect_server import DialectServer
from tests.spear.backends._support import CANARY, ask, call, instance, use
from tests.spear.backends.dialect_kit import (
    ANSWER,
    CANCELLED,
    COMMON,
    LIMIT,
    Fault,
    chat,
    check_cancelled,
    check_fault,
    finished,
    opened,
    said,
)

OPTIONS: dict[str, Any] = {
    "key_header": "X-Odd-Key",
    "headers": {"X-Tenant": "a b"},
    "chat_completions": {
        "path": "/odd/chat",
        "body": {
            "ask": "{system}|{last_user}",
            "engine": "{model}",
            "heat": "{temperature}",
            "list": ["{max_tokens}", "{top_p}", 7],
            "braces": "{{{extra.k}}}",
            "all": "{messages}",
        },
        "text": "/out/0/t",
        "finish_reason": "/why",
        "answer_model": "/by",
        "input_tokens": "/used/in",
        "output_tokens": "/used/out",
        "error": "/problem",
    },
    "embeddings": {
        "path": "/odd/embed",
        "body": {"texts": "{input}"},
        "vectors": "/rows/*/v",
        "input_tokens": "/n",
    },
    "image_generation": {"path": "/odd/draw", "body": {"what": "{prompt}", "n": "{n}"}, "images": "/pictures/*/data"},
    "text_to_speech": {"path": "/odd/say", "body": {"words": "{input}"}, "audio": "/sound"},
    "speech_to_text": {
        "path": "/odd/hear",
        "body": {"sound": "{audio}", "type": "{mime}"},
        "text": "/heard",
        "duration_s": "/took",
    },
}
OPS = tuple(Operation(name) for name in OPTIONS if name in set(Operation))
FIELDS: dict[str, Any] = {"options": OPTIONS, "ops": OPS}
FAULTS = [
    *(Fault(each.name, each.does, each.plain, each.plain, each.says, each.conditions) for each in COMMON if each.plain),
    Fault("an error with status 200", {"body": f'{{"problem": "no: {CANARY}"}}'}, ANSWER, ANSWER, says="no: [secret]"),
    Fault("something else", {"body": '{"out": []}'}, ANSWER, ANSWER, says="no text where options say that its text is"),
]


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_fault(dialect_server: DialectServer, fault: Fault, how: str) -> None:
    await check_fault(dialect_server, "json_http", fault, how, **FIELDS)


@pytest.mark.parametrize("does", CANCELLED)
async def test_cancelling_closes_the_socket(dialect_server: DialectServer, does: dict[str, Any]) -> None:
    await check_cancelled(dialect_server, "json_http", does, "plain", **FIELDS)


async def test_chat(dialect_server: DialectServer) -> None:
    request = said(
        ("system", "be brief"),
        ("user", "hi"),
        generation=Generation(temperature=0.5, max_tokens=3),
        extra={"k": [1], "other": 2},
    )
    with trio.fail_after(LIMIT):
        async with opened("json_http", dialect_server.base_url, **FIELDS) as adapter:
            plain = await adapter.invoke(request, call())
            items = await use(adapter, "stream", request, call())
    assert chat(plain).text == "echo: be brief|hi"
    assert (plain.model, plain.usage.input_tokens, plain.usage.output_tokens) == ("test-model", 2, 3)
    assert not plain.usage.estimated
    assert [type(each) for each in items[:-1]] == [Started, ContentDelta, UsageEvent]
    assert finished(items) == plain
    seen = dialect_server.requests()[0]
    headers = {name.lower(): value for name, value in seen["headers"]}
    assert (headers["x-odd-key"], headers["x-tenant"]) == (CANARY, "a b")
    assert "authorization" not in headers
    assert seen["json"] == {
        "ask": "be brief|hi",
        "engine": "test-model",
        "heat": 0.5,
        "list": [3, 7],
        "braces": "{[1]}",
        "all": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
    }


def envelope(payload: Any) -> RequestEnvelope:
    return RequestEnvelope(operation=Operation(payload.kind), payload=payload, task_id="t")


async def test_embeddings(dialect_server: DialectServer) -> None:
    with trio.fail_after(LIMIT):
        async with opened("json_http", dialect_server.base_url, **FIELDS) as adapter:
            answer = await adapter.invoke(envelope(EmbeddingsRequest(input=("a", "bcd"))), call())
            assert answer.payload == EmbeddingsResult(vectors=((1.0, 0.5), (3.0, 0.5)), dimensions=2)
            assert (answer.usage.input_tokens, answer.usage.estimated) == (2, False)
            dialect_server.script(body='{"rows": [{"v": [1]}, {"w": [1]}]}')
            with pytest.raises(BackendError, match="no list of vectors"):
                await adapter.invoke(envelope(EmbeddingsRequest(input=("a", "b"))), call())


class Kept:
    """A store in memory."""

    def __init__(self) -> None:
        self.saved: list[tuple[bytes, str, str | None]] = []

    async def save(self, data: bytes, mime: str, *, task_id: str | None) -> StoredMedia:
        self.saved.append((data, mime, task_id))
        return StoredMedia(uri=f"smsfile://kept-{len(self.saved)}", mime=mime)

    @asynccontextmanager
    async def write(self, mime: str, *, task_id: str | None) -> AsyncIterator[Any]:
        yield _Writing(self, mime, task_id)

    async def load(self, ref: Any, *, task_id: str | None, max_bytes: int | None = None) -> MediaBytes:
        assert isinstance(ref, InlineMedia)
        return MediaBytes(ref.decode(), ref.mime)


class _Writing:
    def __init__(self, store: Kept, mime: str, task_id: str | None) -> None:
        self._store, self._mime, self._task_id = store, mime, task_id
        self._data = b""

    async def write(self, data: bytes) -> None:
        self._data += data

    async def commit(self) -> StoredMedia:
        return await self._store.save(self._data, self._mime, task_id=self._task_id)


@contextmanager
def kept() -> Iterator[tuple[Kept, Host]]:
    store = Kept()
    media: MediaAccess = store  # type: ignore[assignment]  # it reads nothing in pieces
    yield store, Host(redact=(Secret(CANARY),), media=media)


async def test_media_both_ways(dialect_server: DialectServer) -> None:
    with trio.fail_after(LIMIT), kept() as (store, host):
        async with opened("json_http", dialect_server.base_url, host, **FIELDS) as adapter:
            drawn = await adapter.invoke(envelope(ImageRequest(prompt="a cat", n=2)), call())
            spoken = await adapter.invoke(envelope(TextToSpeechRequest(input="hello")), call())
            sound = InlineMedia(mime="audio/flac", data=base64.b64encode(b"12345").decode())
            heard = await adapter.invoke(envelope(SpeechToTextRequest(audio=sound)), call())
    assert isinstance(drawn.payload, ImageResult)
    assert isinstance(spoken.payload, TextToSpeechResult)
    assert (len(drawn.payload.images), drawn.usage.images) == (2, 2)
    assert (spoken.payload.audio.mime, spoken.usage.characters) == ("audio/wav", 5)
    assert heard.payload == SpeechToTextResult(text="5 bytes of audio/flac", duration_s=1.5)
    assert heard.usage.audio_seconds == pytest.approx(1.5)
    assert [each[1:] for each in store.saved] == [("image/png", "t"), ("image/png", "t"), ("audio/wav", "t")]
    assert store.saved[0][0] == png()


def told_sound(data: bytes) -> str:
    return json.dumps({"sound": base64.b64encode(data).decode()})


@pytest.mark.parametrize("number", ["9" * 400, "1e300", "-1", "true", '"x"'])
async def test_a_length_that_is_none_is_left_out(dialect_server: DialectServer, number: str) -> None:
    dialect_server.script(body=f'{{"heard": "hi", "took": {number}}}')
    request = envelope(SpeechToTextRequest(audio=InlineMedia(mime="audio/wav", data="")))
    with trio.fail_after(LIMIT), kept() as (_, host):
        async with opened("json_http", dialect_server.base_url, host, **FIELDS) as adapter:
            answer = await adapter.invoke(request, call())
    assert isinstance(answer.payload, SpeechToTextResult)
    assert answer.payload.duration_s in (None, 1e300)


@pytest.mark.parametrize(
    ("payload", "body", "says"),
    [
        (ImageRequest(prompt="x"), '{"pictures": []}', "0 images"),
        (ImageRequest(prompt="x"), '{"pictures": [{"data": "AAAA"}]}', "image 0 is neither PNG"),
        (ImageRequest(prompt="x"), '{"pictures": [{"data": "%"}]}', "image 0 is not base64"),
        (ImageRequest(prompt="x"), '{"pictures": [{"data": 1}]}', "no text where options say that its images are"),
        (TextToSpeechRequest(input="x"), '{"sound": ""}', "audio is empty"),
        (TextToSpeechRequest(input="x"), "{}", "no text where options say that its audio is"),
        (TextToSpeechRequest(input="x"), told_sound(b'{"error": "no voice left"}'), "it is text"),
        (TextToSpeechRequest(input="x"), told_sound(png()), "a file of another kind"),
        (TextToSpeechRequest(input="x"), told_sound(wav(1)[:9000]), "breaks off, 23044 bytes before"),
        (TextToSpeechRequest(input="x"), told_sound(wav(0)), "without sound"),
        (SpeechToTextRequest(audio=InlineMedia(mime="audio/wav", data="")), "[]", "that its text is"),
    ],
)
async def test_answers_that_cannot_be_used(dialect_server: DialectServer, payload: Any, body: str, says: str) -> None:
    dialect_server.script(body=body)
    with trio.fail_after(LIMIT), kept() as (store, host):
        async with opened("json_http", dialect_server.base_url, host, **FIELDS) as adapter:
            with pytest.raises(BackendError, match=says):
                await adapter.invoke(envelope(payload), call())
    assert store.saved == []


async def test_what_the_description_has_no_place_for(dialect_server: DialectServer) -> None:
    request = ask(generation=Generation(seed=3, n=1, logprobs=True))
    with trio.fail_after(LIMIT):
        async with opened("json_http", dialect_server.base_url, **FIELDS) as adapter:
            with pytest.raises(RoutingError, match="has no seed, logprobs") as caught:
                await adapter.invoke(request, call())
            with pytest.raises(RoutingError, match="has no size, quality"):
                await adapter.invoke(envelope(ImageRequest(prompt="x", size="1x1", quality="hd")), call())
            assert dialect_server.counts()["total"] == 0
            allowed = request.model_copy(update={"degradation": Degradation(mode="allow")})
            assert (await adapter.invoke(allowed, call())).degraded == (
                "parameters_dropped:seed",
                "parameters_dropped:logprobs",
            )
    assert caught.value.code is ErrorCode.MISSING_CAPABILITIES


async def test_one_text_at_a_time(dialect_server: DialectServer) -> None:
    options = {"embeddings": {"path": "/odd/embed", "body": {"texts": ["{text}"]}, "vectors": "/rows/0/v"}}
    with trio.fail_after(LIMIT):
        async with opened(
            "json_http", dialect_server.base_url, options=options, ops=(Operation.EMBEDDINGS,)
        ) as adapter:
            answer = await adapter.invoke(envelope(EmbeddingsRequest(input=("abc",))), call())
            assert answer.payload == EmbeddingsResult(vectors=((3.0, 0.5),), dimensions=2)
            with pytest.raises(CallerError, match="takes one at a time"):
                await adapter.invoke(envelope(EmbeddingsRequest(input=("a", "b"))), call())
            with pytest.raises(RoutingError, match="do not describe chat_completions"):
                await adapter.invoke(ask(), call())


async def test_tool_calls_in_openai_words(dialect_server: DialectServer) -> None:
    described = {**OPTIONS["chat_completions"], "tool_calls": "/calls", "reasoning": "/hm"}
    made = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    with trio.fail_after(LIMIT):
        async with opened(
            "json_http", dialect_server.base_url, options={"chat_completions": described}, ops=OPS[:1]
        ) as adapter:
            dialect_server.script(body=dump_json({"calls": [made], "hm": "thinking"}).decode())
            answer = await adapter.invoke(ask(), call())
            dialect_server.script(body='{"calls": [{"name": "f"}]}')
            with pytest.raises(BackendError, match="tool calls are not in OpenAI's words"):
                await adapter.invoke(ask(), call())
    (choice,) = chat(answer).choices
    assert isinstance(choice.message, ChatMessage)
    assert (choice.finish_reason, choice.message.tool_calls[0].function.name) == ("tool_calls", "f")
    assert choice.message.extra == {"reasoning_content": "thinking"}


def changed(*path: str, value: Any) -> dict[str, Any]:
    options: dict[str, Any] = {**OPTIONS, "chat_completions": dict(OPTIONS["chat_completions"])}
    inner = options
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return options


CHAT = "chat_completions"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "options: describes no operation"),
        ({"chats": {}}, "options.chats: unknown; this kind has headers, key_header"),
        (changed("key_header", value="X Key"), "options.key_header: must be the name of a header"),
        (changed("key_prefix", value="\n"), "options.key_prefix: must be"),
        (changed("headers", value={"Authorization": "x"}), "options.headers.Authorization: cannot be set here"),
        (changed("headers", value={"X-A": "b\r\nX-C: d"}), "options.headers.X-A: must be a text of printable"),
        (changed(CHAT, value=3), "options.chat_completions: must be a table"),
        (changed(CHAT, "path", value=None), "options.chat_completions.path: is missing"),
        (changed(CHAT, "text", value=None), "options.chat_completions.text: is missing"),
        (changed(CHAT, "path", value="generate"), "options.chat_completions.path: must begin with a slash"),
        (changed(CHAT, "path", value="/a b"), "options.chat_completions.path: must begin with a slash"),
        (changed(CHAT, "method", value="GET"), 'options.chat_completions.method: must be "POST" or "PUT"'),
        (changed(CHAT, "text", value="out"), "options.chat_completions.text: must be a JSON pointer"),
        (changed(CHAT, "text", value="/a~2"), "options.chat_completions.text: has a ~ that"),
        (changed(CHAT, "text", value="/*/*/*"), "options.chat_completions.text: is too long"),
        (changed(CHAT, "texts", value="/a"), "options.chat_completions.texts: unknown; this operation has path"),
        (changed(CHAT, "body", value="x"), "options.chat_completions.body: must be a table"),
        (
            changed(CHAT, "body", value={"a": "{promt}"}),
            "has a place {promt} that this operation does not have",
        ),
        (changed(CHAT, "body", value={"a": ["{ x"]}), "options.chat_completions.body: has a brace that begins"),
        (changed(CHAT, "mime", value="text/html"), "options.chat_completions.mime: must be a type of audio"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is compared below
        find_kind("json_http").check(instance(kind="json_http", base_url="https://a.example", options=options, ops=OPS))
    assert says in str(caught.value)


def test_operations_have_to_be_named_and_described() -> None:
    kind, options = find_kind("json_http"), {CHAT: OPTIONS[CHAT]}
    given: dict[str, Any] = {"kind": "json_http", "base_url": "https://a.example", "options": options}
    with pytest.raises(ValueError, match=r'ops: is missing; .* ops = \["chat_completions"\]'):
        kind.check(instance(**given))
    with pytest.raises(ValueError, match="ops: embeddings is not described"):
        kind.check(instance(**given, ops=(Operation.EMBEDDINGS,)))
    kind.check(instance(**given, ops=(Operation.CHAT_COMPLETIONS,)))


FEW = settings(max_examples=50, deadline=None)
TEXT = st.text(st.sampled_from("ab{}./~*0 "), max_size=8)
JSON = st.recursive(
    st.none() | st.integers(-2, 2) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@FEW
@given(TEXT, JSON)
def test_any_pointer(text: str, value: Any) -> None:
    try:
        pointer = read_pointer(text)
    except ValueError:
        return
    found = pointer.find(value)
    assert found is MISSING or dump_json(found)


@FEW
@given(st.lists(TEXT, max_size=3), st.integers())
def test_a_pointer_finds_what_stands_there(path: list[str], value: int) -> None:
    whole: Any = value
    for key in reversed(path):
        whole = {key: whole}
    text = "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)
    if text.count("*") <= 2:
        assert read_pointer(text).find(whole) == value


@FEW
@given(st.dictionaries(TEXT, JSON, max_size=3))
def test_any_template(template: dict[str, Any]) -> None:
    try:
        body = read_body(template, lambda name: True, "all")
    except ValueError:
        return
    dump_json(body.filled(lambda name: None))
    dump_json(body.filled(lambda name: [name]))


@FEW
@given(JSON)
def test_without_places_a_template_is_itself(value: Any) -> None:
    written = _doubled(value)
    assert read_body({"k": written}, lambda name: False, "").filled(lambda name: None) == {"k": value}


def _doubled(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("{", "{{").replace("}", "}}")
    if isinstance(value, list):
        return [_doubled(item) for item in value]
    return {key: _doubled(item) for key, item in value.items()} if isinstance(value, dict) else value
