"""A guest's request of a family to a request, and answers to what it reads; whatever a guest may have written."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spear.hostcall._errno import Refused
from spear.hostcall._family import FAMILIES
from spear.hostcall._json import Malformed, parse
from spear.ir import (
    AudioDelta,
    ChatResult,
    ContentDelta,
    InlineMedia,
    ReasoningDelta,
    ResponseEnvelope,
    Result,
    SegmentEvent,
    Started,
    StoredMedia,
    Usage,
    UsageEvent,
    dump_json,
)
from spear.normalize import (
    FamilyInputs,
    Unusable,
    family_body,
    family_events,
    family_metrics,
    request_from_family,
)

SOUND = StoredMedia(uri="smsfile://a", mime="audio/wav", size=3, sha256="0" * 64)
NAMES = sorted({key for family in FAMILIES for key in family.params} | {"knob", "stream", "input", "kind", "extra"})
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.sampled_from(
        ["float", "allow", "auto", "16x16", "wav", "de", "segment", {"kind": "sms_file", "uri": "smsfile://a"}]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.sampled_from(FAMILIES),
    st.dictionaries(st.sampled_from(NAMES) | st.text(min_size=1, max_size=9), values),
    st.text(),
)
@example(FAMILIES[0], {"a": 1e999}, "")
@example(FAMILIES[3], {"model": "\0", "speed": 4}, "\ufffd")
@example(FAMILIES[1], {"knob": 10**30}, "a")
@settings(deadline=None, max_examples=50)
def test_what_set_param_takes_makes_a_request(family, params, text):
    taken = {}
    for key, value in params.items():
        try:
            given_value = parse(json.dumps(value, ensure_ascii=False))
            check = family.params.get(key)
            kept = given_value if check is None or given_value is None else check(given_value)
        except (Malformed, Refused, UnicodeEncodeError):
            continue
        if kept is not None:
            taken[key] = kept
    texts = () if family.name == "asr" else (text,)
    for stream in (False, True):
        inputs = FamilyInputs(family.name, 1000, taken, texts, SOUND if family.name == "asr" else None)
        request = request_from_family(inputs, task_id="t", stream=stream)
        assert request.payload.kind == request.operation.value
        unknown = taken.keys() - family.params.keys()
        assert request.payload.extra.keys() == unknown
        dump_json(request.model_dump(mode="json"))


def test_events():
    segment = SegmentEvent(start_s=0.5, end_s=1.0, text="a", speaker="b")
    assert family_events(Started(backend="b", model="m")) == [{"type": "started", "backend": "b", "model": "m"}]
    assert family_events(ContentDelta(delta="x")) == [{"type": "content_delta", "delta": "x"}]
    assert family_events(segment) == [{"type": "segment", "start_s": 0.5, "end_s": 1.0, "text": "a", "speaker": "b"}]
    assert family_events(UsageEvent(usage=Usage(characters=4, images=0))) == [{"type": "usage", "characters": 4}]
    assert family_events(ReasoningDelta(delta="x")) == []


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 200_000])
def test_audio_is_cut_into_pieces_that_fit(size):
    sound = bytes(n % 251 for n in range(size))
    events = family_events(AudioDelta(audio=base64.b64encode(sound).decode(), format="wav"))
    pieces = [base64.b64decode(event["audio"], validate=True) for event in events]
    assert b"".join(pieces) == sound
    assert all(0 < len(piece) <= 65_536 for piece in pieces)


def test_an_answer_of_another_operation_is_unusable():
    request = request_from_family(FamilyInputs("tts", 1, {}, ("a",)), task_id=None)
    response = ResponseEnvelope(request_id="r", operation=request.operation, result=Result(payload=ChatResult()))
    with pytest.raises(Unusable, match="chat_completions"):
        family_body(response, request)


def test_metrics_are_those_that_are_not_zero():
    usage = Usage(input_tokens=0, output_tokens=None, audio_seconds=1.5, characters=3)
    assert family_metrics(usage) == {"audio_seconds": 1.5, "characters": 3}


def test_inline_data_is_no_answer():
    from spear.normalize._family_body import media_out

    with pytest.raises(Unusable, match="inline_base64"):
        media_out(InlineMedia(mime="a/b", data=""))
    with pytest.raises(Unusable):
        media_out(StoredMedia(uri="smsfile://a"))
