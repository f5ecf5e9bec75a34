"""What is done less well rather than refused: each step, the search for the fewest, and the whole way."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import spear
from spear.backends import Answer
from spear.config import ALL_STEPS
from spear.ir import (
    ChatChoice,
    ChatMessage,
    ChatRequest,
    ChatResult,
    Degradation,
    FunctionCall,
    ImageRequest,
    ImageResult,
    InlineMedia,
    Operation,
    RequestEnvelope,
    Requirements,
    RoutingError,
    SpeechToTextRequest,
    TextPart,
    TextToSpeechRequest,
    TextToSpeechResult,
    ToolCall,
    Usage,
)
from spear.normalize import with_requirements
from spear.router.degrade import lessened, narrowed, restored
from spear.router.degrade._chat import calls_in
from spear.router.degrade._steps import STEPS, plain_text
from spear.testing import FakeBackend, Reply, fake_kinds

PNG = InlineMedia(mime="image/png", data=base64.b64encode(b"\x89PNG\r\n\x1a\n").decode())
WAV = InlineMedia(mime="audio/wav", data=base64.b64encode(b"RIFF....WAVEfmt ").decode())
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
ALLOW = Degradation(mode="allow")


def request_of(payload, *, degradation=ALLOW, features=(), stream=False) -> RequestEnvelope:
    bare = RequestEnvelope(
        operation=Operation(payload.kind),
        payload=payload,
        degradation=degradation,
        requirements=Requirements(required_features=features),
    )
    return with_requirements(bare, stream=stream)


def chat(*messages: ChatMessage, **fields) -> ChatRequest:
    return ChatRequest(messages=messages or (ChatMessage(role="user", content="hi"),), **fields)


def able(*features: str):
    """Admits what needs nothing but these."""
    return lambda request: set(request.requirements.required_features) <= set(features)


# --- the search


def test_the_fewest_steps_are_taken():
    payload = TextToSpeechRequest(input="<speak>a <b>b</b></speak>", ssml=True, voice="v")
    request = request_of(payload)
    found = {has: lessened(request, ALL_STEPS, able(*has))[1] for has in [("supports_voices",), ("supports_ssml",), ()]}
    assert found == {
        ("supports_voices",): ("strip_ssml",),
        ("supports_ssml",): ("default_voice",),
        (): ("strip_ssml", "default_voice"),
    }
    less, _ = lessened(request, ALL_STEPS, able())
    assert less.payload == TextToSpeechRequest(input="a b")
    assert (less.request_id, less.requirements.required_features) == (request.request_id, ())


@pytest.mark.parametrize(
    ("degradation", "host"),
    [
        (Degradation(), ALL_STEPS),
        (Degradation(mode="allow", steps=("strip_ssml",)), ALL_STEPS),
        (ALLOW, ("strip_ssml",)),
        (ALLOW, ()),
    ],
)
def test_only_what_request_and_host_allow(degradation, host):
    request = request_of(TextToSpeechRequest(input="a", voice="v"), degradation=degradation)
    assert lessened(request, host, able()) is None


def test_what_would_help_nobody_is_not_done():
    request = request_of(TextToSpeechRequest(input="a", voice="v"))
    assert lessened(request, ALL_STEPS, lambda request: False) is None


def test_every_step_of_the_configuration_but_the_adapters_own_is_here():
    assert {step.name for steps in STEPS.values() for step in steps} == set(ALL_STEPS) - {
        "parameters_dropped",
        "partial",
        "truncate_input",
    }


def test_adapters_are_told_what_the_host_allows():
    asked = request_of(chat())
    assert narrowed(asked, ("merge_system",)).degradation == Degradation(mode="allow", steps=("merge_system",))
    assert narrowed(asked, ()).degradation == Degradation()
    assert narrowed(asked, ("partial", "strip_ssml")).degradation.steps == ("strip_ssml",)
    named = request_of(chat(), degradation=Degradation(mode="allow", steps=("partial", "strip_ssml")))
    assert narrowed(named, ("partial",)).degradation.steps == ("partial",)
    rejecting = request_of(chat(), degradation=Degradation())
    assert narrowed(rejecting, ()) is rejecting


# --- each step


def test_mask_to_text():
    less, steps = lessened(request_of(ImageRequest(prompt="a", image=PNG, mask=PNG, n=2)), ALL_STEPS, able())
    assert (less.payload, steps) == (ImageRequest(prompt="a", n=2), ("mask_to_text",))
    assert lessened(request_of(ImageRequest(prompt="a", image=PNG)), ALL_STEPS, able()) is None


def test_drop_timestamps():
    request = request_of(SpeechToTextRequest(audio=WAV, timestamps="word", language="en"))
    less, steps = lessened(request, ALL_STEPS, able("supports_language"))
    assert (less.payload.timestamps, steps) == (None, ("drop_timestamps",))


@pytest.mark.parametrize(
    ("ssml", "text"),
    [
        ("<speak>a<break time='1s'/>b &amp; <emphasis>c</emphasis></speak>", "a b & c"),
        ("<speak><p>one</p><p>two</p></speak>", "one two"),
        ("a <!-- <b> --> c", "a c"),
        ("no marks", "no marks"),
        ("1 < 2", "1 < 2"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>&a;", "<!DOCTYPE x []>&a;"),
        ("<!-- " * 50_000, ""),
        ("<a" * 100_000, "<a" * 100_000),
        ("<speak/>", ""),
    ],
)
def test_plain_text(ssml, text):
    assert plain_text(ssml) == text


def test_ssml_of_nothing_is_not_stripped_to_nothing():
    request = request_of(TextToSpeechRequest(input="<speak/>", ssml=True))
    assert lessened(request, ALL_STEPS, able()) is None


@pytest.mark.parametrize(
    ("messages", "merged"),
    [
        (
            [("system", "a"), ("user", "b"), ("developer", "c"), ("user", "d")],
            [("user", "a\n\nc\n\nb"), ("user", "d")],
        ),
        ([("system", "a"), ("assistant", "b")], [("user", "a"), ("assistant", "b")]),
        ([("system", "a"), ("user", None)], [("user", "a")]),
        (
            [("system", "a"), ("user", [{"type": "text", "text": "b"}])],
            [("user", [{"type": "text", "text": "a\n\n"}, {"type": "text", "text": "b"}])],
        ),
    ],
)
def test_merge_system(messages, merged):
    payload = chat(*[ChatMessage(role=role, content=content) for role, content in messages])
    less, steps = lessened(request_of(payload, features=("supports_system_role",)), ALL_STEPS, able())
    assert steps == ("merge_system",)
    assert [(message.role, message.content) for message in less.payload.messages] == merged


def test_merge_system_into_parts():
    parts = ChatMessage(role="user", content_parts=(TextPart(text="b"),))
    payload = chat(ChatMessage(role="system", content="a"), parts)
    less, _ = lessened(request_of(payload, features=("supports_system_role",)), ALL_STEPS, able())
    assert [part.text for part in less.payload.messages[0].content_parts] == ["a\n\n", "b"]


def test_tools_by_prompt_in_words():
    call = ToolCall(id="c1", function=FunctionCall(name="add", arguments='{"a":1}'))
    payload = chat(
        ChatMessage(role="user", content="1 + 2"),
        ChatMessage(role="assistant", content="wait", tool_calls=(call,)),
        ChatMessage(role="tool", tool_call_id="c1", content="3"),
        tools=(TOOL,),
        tool_choice="required",
    )
    less, steps = lessened(request_of(payload), ALL_STEPS, able())
    assert steps == ("tools_by_prompt",)
    assert (less.payload.tools, less.payload.tool_choice) == ((), None)
    told, user, assistant, result = less.payload.messages
    assert told.role == "system"
    assert '{"name":"add","parameters":{"type":"object"}}\nYou must call a tool.' in told.content
    assert user.content == "1 + 2"
    assert assistant.content == 'wait\n{"tool_calls":[{"id":"c1","name":"add","arguments":{"a":1}}]}'
    assert (result.role, result.content) == ("user", "Result of the tool call c1: 3")


def test_a_stream_has_no_tools_by_prompt():
    assert lessened(request_of(chat(tools=(TOOL,)), stream=True), ALL_STEPS, able("supports_stream")) is None


CALL = '{"tool_calls": [{"name": "add", "arguments": {"a": 1}}]}'


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (CALL, [("add", '{"a":1}')]),
        (f"```json\n{CALL}\n```", [("add", '{"a":1}')]),
        ('{"tool_calls": [{"name": "a"}, {"name": "b", "arguments": "x"}]}', [("a", "{}"), ("b", "x")]),
        (f"```python\n{CALL}\n```", []),
        ("```" + "\n" * 100_000 + "```", []),
        (f"I will call {CALL}", []),
        ('{"tool_calls": []}', []),
        ('{"tool_calls": [{"name": ""}]}', []),
        ('{"tool_calls": [{"name": "a"}], "more": 1}', []),
        ('{"tool_calls": [3]}', []),
        ('{"tool_calls": 3}', []),
        ('{"a": 1}', []),
        ("{", []),
        ("", []),
    ],
)
def test_calls_in(text, calls):
    assert [(call.function.name, call.function.arguments) for call in calls_in(text)] == calls


@settings(max_examples=50, deadline=None)
@example('{"tool_calls":[{"name":"a","arguments":null}]}')
@given(st.text() | st.text('{}[]":,ntoolcaesrgum_ ').map(lambda text: '{"tool_calls":' + text))
def test_any_text_is_an_answer(text):
    message = ChatMessage(role="assistant", content=text)
    answer = Answer(ChatResult(choices=(ChatChoice(index=0, message=message, finish_reason="stop"),)), Usage())
    choice = restored(answer, ("tools_by_prompt",)).payload.choices[0]
    assert (choice.message.content == text) != bool(choice.message.tool_calls)
    assert restored(answer, ("merge_system",)) is answer


# --- the whole way


def world(fakes: dict[str, FakeBackend], features: dict[str, list[str]], **more):
    backends = [
        {"name": name, "kind": "fake", "hosting": "local", "features": features[name], **more.pop(name, {})}
        for name in fakes
    ]
    config = {"spear": {"backends": backends, **more}}
    return spear.open_runtime(config, kinds=fake_kinds(fakes, kind="fake"))


SPOKEN = Reply(result=TextToSpeechResult(audio=WAV))
DRAWN = Reply(result=ImageResult(images=(PNG,)))


async def test_the_response_names_the_step():
    fake = FakeBackend(SPOKEN)
    async with world({"a": fake}, {"a": []}) as runtime:
        reply = await runtime.speak("<speak>hello</speak>", voice="v", ssml=True, degradation="allow")
    assert reply.response.backend.degraded == ("strip_ssml", "default_voice")
    assert fake.requests[0].payload == TextToSpeechRequest(input="hello")


async def test_without_leave_it_is_refused_and_nothing_is_sent():
    fake = FakeBackend()
    async with world({"a": fake}, {"a": []}) as runtime:
        with pytest.raises(RoutingError, match=r"missing_capabilities: .*supports_voices"):
            await runtime.speak("a", voice="v")
        with pytest.raises(RoutingError, match="missing_capabilities"):
            await runtime.speak("a", voice="v", degradation=["strip_ssml"])
    assert fake.requests == []


async def test_the_host_may_forbid_it():
    fake = FakeBackend()
    async with world({"a": fake}, {"a": []}, allow_degradation=["strip_ssml"]) as runtime:
        with pytest.raises(RoutingError, match="missing_capabilities"):
            await runtime.speak("a", voice="v", degradation="allow")
    assert fake.requests == []


async def test_somebody_who_can_do_all_of_it_comes_first():
    plain, able_one = FakeBackend(), FakeBackend(DRAWN)
    features = {"plain": [], "able": ["supports_mask", "supports_image_input"]}
    async with world({"plain": plain, "able": able_one}, features) as runtime:
        reply = await runtime.image("a", image=PNG, mask=PNG, degradation="allow")
    assert (reply.response.backend.name, reply.response.backend.degraded) == ("able", ())


async def test_a_named_backend_or_model_that_lacks_it():
    plain, able_one = FakeBackend(DRAWN, DRAWN), FakeBackend()
    features = {"plain": [], "able": ["supports_mask", "supports_image_input"]}
    models = {"plain": {"model": "m"}, "able": {"model": "n"}}
    async with world({"plain": plain, "able": able_one}, features, **models) as runtime:
        for choice in ({"backend": "plain"}, {"model": "m"}):
            reply = await runtime.image("a", image=PNG, mask=PNG, degradation="allow", **choice)
            assert (reply.response.backend.name, reply.response.backend.degraded) == ("plain", ("mask_to_text",))


async def test_a_voice_that_nobody_has():
    fake = FakeBackend(SPOKEN)
    more = {"a": {"limits": {"supported_voices": ["en"]}}}
    async with world({"a": fake}, {"a": ["supports_voices"]}, **more) as runtime:
        reply = await runtime.speak("a", voice="xx", degradation="allow")
    assert reply.response.backend.degraded == ("default_voice",)


async def test_tools_by_prompt_all_the_way():
    fake = FakeBackend(CALL, "plain text")
    async with world({"a": fake}, {"a": []}) as runtime:
        asked = request_of(chat(tools=(TOOL,)))
        response = await runtime.invoke(asked)
        choice = response.unwrap().choices[0]
        assert [call.function.name for call in choice.message.tool_calls] == ["add"]
        assert (choice.finish_reason, response.backend.degraded) == ("tool_calls", ("tools_by_prompt",))
        assert fake.requests[0].payload.tools == ()
        assert (await runtime.invoke(request_of(chat(tools=(TOOL,))))).unwrap().text == "plain text"


async def test_a_stream_that_is_done_less_well():
    fake = FakeBackend("hello there")
    payload = chat(ChatMessage(role="system", content="s"), ChatMessage(role="user", content="u"))
    asked = request_of(payload, features=("supports_system_role",))
    async with world({"a": fake}, {"a": ["supports_stream"]}) as runtime, runtime.stream(asked) as events:
        *_, last = [event async for event in events]
    assert last.response.backend.degraded == ("merge_system",)
    assert fake.requests[0].payload.messages[0].content == "s\n\nu"


async def test_explain_says_so():
    async with world({"a": FakeBackend()}, {"a": []}) as runtime:
        told = runtime.explain(request_of(TextToSpeechRequest(input="a", voice="v")))
        assert (told.chosen, told.note) == ("a", "done less well: default_voice")
        refused = runtime.explain(request_of(TextToSpeechRequest(input="a", voice="v"), degradation=Degradation()))
        assert refused.chosen is None


async def test_a_fallback_gets_the_same():
    from spear.testing import backend_failure

    first, second = FakeBackend(backend_failure()), FakeBackend(SPOKEN)
    async with world({"a": first, "b": second}, {"a": [], "b": []}, default_policy="priority") as runtime:
        reply = await runtime.speak("a", voice="v", degradation="allow")
    assert reply.response.backend.degraded == ("default_voice",)
    assert [fake.requests[0].payload.voice for fake in (first, second)] == [None, None]


async def test_a_host_that_names_no_such_step():
    with pytest.raises(spear.SpearError, match=r"allow_degradation\[0\]: is none of the known names"):
        async with world({"a": FakeBackend()}, {"a": []}, allow_degradation=["hope"]):
            pass
