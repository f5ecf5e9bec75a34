"""What a payload requires, for all six operations."""

from __future__ import annotations

import pytest
from hypothesis import given

from spear.ir import (
    AudioPart,
    ChatMessage,
    ChatRequest,
    EmbeddingsRequest,
    ImagePart,
    ImageRequest,
    InlineMedia,
    Operation,
    RealtimeRequest,
    RealtimeSession,
    RequestEnvelope,
    Requirements,
    ResponseFormat,
    SpeechToTextRequest,
    TextPart,
    TextToSpeechRequest,
    Transport,
)
from spear.normalize import requirements_of, with_requirements
from tests.spear.ir.ir_strategies import examples, instances

PNG = InlineMedia(mime="image/png", data="AAAA")
WAV = InlineMedia(mime="audio/wav", data="AAAA")
HI = ChatMessage(role="user", content="hi")


def chat(*parts, **fields):
    message = ChatMessage(role="user", content_parts=parts) if parts else HI
    return ChatRequest(messages=(message,), **fields)


def raw(*parts):
    return ChatRequest(messages=(HI, ChatMessage(role="user", content=list(parts))))


@pytest.mark.parametrize(
    ("payload", "features"),
    [
        (chat(), []),
        (chat(TextPart(text="a")), []),
        (chat(tools=({"type": "function"},)), ["supports_tools"]),
        (chat(tool_choice="none"), []),
        (chat(response_format=ResponseFormat(type="json_schema")), ["supports_json_schema"]),
        (chat(response_format=ResponseFormat(type="json_object")), []),
        (chat(extra={"response_format": {"type": "json_schema", "strict": 1}}), ["supports_json_schema"]),
        (chat(extra={"response_format": "json_schema"}), []),
        (chat(ImagePart(media=PNG), AudioPart(media=WAV)), ["supports_image_input", "supports_audio_input"]),
        (chat(ImagePart(media=PNG), ImagePart(media=PNG)), ["supports_image_input"]),
        (raw({"type": "image_url", "x": 1}), ["supports_image_input"]),
        (raw({"type": "input_audio"}, {"type": "text"}, 3, {"type": 4}), ["supports_audio_input"]),
        (EmbeddingsRequest(input=("a",)), []),
        (EmbeddingsRequest(input=("a",), dimensions=3), ["supports_dimensions"]),
        (ImageRequest(prompt="a"), []),
        (ImageRequest(prompt="a", image=PNG), ["supports_image_input"]),
        (ImageRequest(prompt="a", image=PNG, mask=PNG), ["supports_image_input", "supports_mask"]),
        (SpeechToTextRequest(audio=WAV), []),
        (SpeechToTextRequest(audio=WAV, timestamps="none", diarization=False), []),
        (
            SpeechToTextRequest(audio=WAV, timestamps="word", diarization=True, language="de"),
            ["supports_timestamps", "supports_diarization", "supports_language"],
        ),
        (TextToSpeechRequest(input="a", ssml=False), []),
        (TextToSpeechRequest(input="a", voice="v", ssml=True), ["supports_voices", "supports_ssml"]),
        (RealtimeRequest(session=RealtimeSession()), ["supports_bidi_stream"]),
    ],
)
def test_features(payload, features):
    assert list(requirements_of(payload).required_features) == features


def test_stream_and_named_tools():
    assert requirements_of(chat(), stream=True).required_features == ("supports_stream",)
    assert requirements_of(chat(), tools=True).required_features == ("supports_tools",)


def test_a_batch_is_preferred_not_required():
    derived = requirements_of(EmbeddingsRequest(input=("a", "b")))
    assert derived == Requirements(preferred_features=("supports_batch",))


def test_realtime_needs_a_two_way_transport():
    derived = requirements_of(RealtimeRequest(session=RealtimeSession()))
    assert set(derived.required_transports) == {Transport.WEBSOCKET, Transport.GRPC, Transport.IN_PROCESS}


def test_what_the_caller_requires_stays():
    given_requirements = Requirements(
        required_features=("mine", "supports_tools"),
        required_ops=(Operation.CHAT_COMPLETIONS,),
        required_transports=(Transport.HTTP,),
        preferred_backends=("b",),
    )
    request = RequestEnvelope(
        operation=Operation.CHAT_COMPLETIONS,
        payload=chat(ImagePart(media=PNG), tools=({},)),
        requirements=given_requirements,
    )
    derived = with_requirements(request, stream=True).requirements
    assert derived.required_features == ("mine", "supports_tools", "supports_stream", "supports_image_input")
    assert derived.model_copy(update={"required_features": given_requirements.required_features}) == given_requirements


@examples(50)
@given(instances(RequestEnvelope))
def test_adding_requirements_twice_changes_nothing_and_nothing_is_taken_away(request):
    once = with_requirements(request)
    assert with_requirements(once) is once
    assert set(once.requirements.required_features) >= set(request.requirements.required_features)
    assert once.payload is request.payload
