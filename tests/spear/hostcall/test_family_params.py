"""SET_PARAM of the families: types, ranges, references to media, and whatever else a guest may write there."""

from __future__ import annotations

import base64
import json
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spear.config._model import DegradationStep
from spear.hostcall import Limits
from spear.hostcall._errno import EINVAL, Refused
from spear.hostcall._family_params import ASR, EMB, IMG, STEPS, TTS
from spear.ir import InlineMedia, StoredMedia, UrlMedia
from tests.spear.hostcall.operations import MemoryMedia, Operations, ask_json, new_request, raw_param, set_param
from tests.spear.hostcall.probe import RELAXED, open_probe

PNG = {"kind": "inline_base64", "mime": "image/png", "data": "aGFsbG8="}
TABLES = {"emb": EMB, "img": IMG, "asr": ASR, "tts": TTS}
COMMON = {
    "model": (["", "m"], [1, [], True]),
    "backend": (["", "b"], [1]),
    "timeout_ms": ([1, 3_600_000], [0, -1, 3_600_001, 1.5, "1", True]),
    "degradation": (["reject", "allow", [], ["split_batch", "cascade"]], ["maybe", 1, [1], ["invented"], {}]),
}
VALUES = {
    "emb": {"dimensions": ([1, 65_536], [0, 65_537, 1.0, True]), "encoding_format": (["float", "base64"], ["int8", 1])},
    "img": {
        "size": (["auto", "16x16", "8192x16"], ["15x16", "16x8193", "16", "16x", "0016x16", "16X16", " 16x16", 16]),
        "n": ([1, 10], [0, 11, True]),
        "quality": (["hd"], [1]),
        "style": (["vivid"], [{}]),
        "seed": ([0, 2**31 - 1], [-1, 2**31, 0.5]),
        "image": ([PNG], [{}, "x", [PNG]]),
        "mask": ([PNG], [{**PNG, "data": "?"}]),
    },
    "asr": {
        "language": (["de", "en-US", "zh-Hant-TW", "x-klingon"], ["", "de_DE", "deutsch-german-x" * 9, "d e", 1]),
        "prompt": (["p" * 16_384], ["p" * 16_385, "ß" * 8193, 1]),
        "timestamps": (["none", "segment", "word"], ["both", True]),
        "diarization": ([True, False], [1, "yes"]),
        "format": (["wav", "mp3", "flac", "ogg", "opus", "webm", "m4a", "pcm16"], ["pcm", "WAV"]),
        "sample_rate_hz": ([8000, 192_000], [7999, 192_001, "8000"]),
        "audio": ([PNG], [0]),
    },
    "tts": {
        "voice": (["", "anna"], [1]),
        "format": (["wav", "mp3", "pcm", "opus", "flac"], ["ogg", 3]),
        "speed": ([0.25, 1, 4, 4.0], [0.24, 4.01, "1", True]),
        "ssml": ([True, False], [0, "true"]),
    },
}


@pytest.mark.parametrize("family", sorted(VALUES))
async def test_types_and_ranges(family):
    assert {*VALUES[family], *COMMON} == set(TABLES[family])
    async with open_probe(operations=Operations()) as probe:
        fd = await new_request(probe, family)
        for key, (good, bad) in {**COMMON, **VALUES[family]}.items():
            for value in good:
                assert await set_param(probe, family, fd, key, value) == 0, (key, value)
            kept = probe.guest.fds.get(fd).params[key]
            for value in bad:
                assert await set_param(probe, family, fd, key, value) == -22, (key, value)
            assert probe.guest.fds.get(fd).params[key] == kept  # a refused call changes nothing
            assert await set_param(probe, family, fd, key, None) == 0
            assert key not in probe.guest.fds.get(fd).params


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "{}", '{"key":"a"}', '{"value":1}', '{"key":"","value":1}', '{"key":1,"value":1}', "nan",
     '{"key":"a","value":NaN}', '{"key":"a","value":"\\ud800"}', '{"key":"a","value":' + "[" * 129 + "]" * 129 + "}"],
)  # fmt: skip
async def test_what_is_no_parameter(text):
    async with open_probe(operations=Operations()) as probe:
        fd = await new_request(probe, "tts")
        assert await raw_param(probe, "tts", fd, text) == -22


def test_every_step_of_the_host_can_be_named():
    assert set(get_args(DegradationStep)) <= STEPS


REFS = [
    {"kind": "sms_file", "uri": "smsfile://there", "size": 3},
    {"kind": "http_url", "url": "https://allowed.example/a.png", "mime": "image/png"},
    PNG,
]
BAD_REFS = [
    {},
    {"kind": "sms_file"},
    {"kind": "sms_file", "uri": "smsfile://"},
    {"kind": "sms_file", "uri": "smsfile://../etc/passwd"},
    {"kind": "sms_file", "uri": "file:///etc/passwd"},
    {"kind": "sms_file", "uri": 1},
    {"kind": "sms_file", "uri": "smsfile://there", "owner": "other"},
    {"kind": "inline_base64", "mime": "image/png"},
    {"kind": "inline_base64", "mime": "png", "data": "aGFsbG8="},
    {"kind": "inline_base64", "mime": "image/p ng,x", "data": "aGFsbG8="},
    {"kind": "http_url", "mime": "image/p ng", "url": "https://example.com/a.png"},
    {"kind": "inline_base64", "mime": "image/png", "data": "aGFsbG8"},
    {"kind": "inline_base64", "mime": "image/png", "data": "aGF\nsbG8="},
    {"kind": "inline_base64", "mime": "image/png", "data": "-_-_"},
    {"kind": "http_url", "url": "https://allowed.example/a.png"},
    {"kind": "http_url", "url": "https://allowed.example/a.png", "mime": None},
    {"kind": "http_url", "url": "ftp://allowed.example/", "mime": "image/png"},
    {"kind": "http_url", "url": "https://allowed.example/ x", "mime": "image/png"},
    {"kind": "else", "uri": "smsfile://there"},
    {"kind": ["sms_file"], "uri": "smsfile://there"},
]


async def test_references_to_media():
    media = MemoryMedia()
    stored = media.put("there", b"123", "image/png")
    async with open_probe(operations=Operations(media=media)) as probe:
        fd = await new_request(probe, "img")
        for ref in BAD_REFS:
            assert await set_param(probe, "img", fd, "image", ref) == -22, ref
        assert await ask_json(probe, "spear_last_error") | {"message": ""} == {
            "attempts": 0, "call": "img_ctl", "code": "invalid_request", "errno": -22, "fd": fd, "message": "",
            "operation": None, "rejected": {}, "required": [], "retry_after_ms": None, "retryable": False,
        }  # fmt: skip
        for ref in (
            {"kind": "sms_file", "uri": "smsfile://elsewhere"},
            {"kind": "http_url", "url": "https://other.example/", "mime": "image/png"},
        ):
            assert await set_param(probe, "img", fd, "image", ref) == -13, ref
            assert (await ask_json(probe, "spear_last_error"))["code"] == "media_not_allowed"
        expected = [
            stored,
            UrlMedia(url="https://allowed.example/a.png", mime="image/png"),
            InlineMedia(mime="image/png", data="aGFsbG8="),
        ]
        for ref, kept in zip(REFS, expected, strict=True):
            assert await set_param(probe, "img", fd, "image", ref) == 0
            assert probe.guest.fds.get(fd).params["image"] == kept
        assert not media.writers


async def test_inline_data_that_is_large_is_stored_and_counts_as_media():
    media = MemoryMedia(max_objects=1)
    limits = Limits(inline_media_bytes=100)
    async with open_probe(operations=Operations(media=media), limits=limits) as probe:
        fd = await new_request(probe, "img")
        for size in (99, 100):
            data = base64.b64encode(b"x" * size).decode()
            assert await set_param(probe, "img", fd, "image", {**PNG, "data": data}) == 0
            assert isinstance(probe.guest.fds.get(fd).params["image"], InlineMedia)
        large = base64.b64encode(b"x" * 101).decode()
        assert await set_param(probe, "img", fd, "image", {**PNG, "data": large}) == 0
        kept = probe.guest.fds.get(fd).params["image"]
        assert isinstance(kept, StoredMedia)
        assert media.objects[kept.uri][1] == b"x" * 101
        assert await set_param(probe, "img", fd, "mask", {**PNG, "data": large}) == -12
        assert "mask" not in probe.guest.fds.get(fd).params


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(TABLES)), json_values)
@example("img", {"kind": "sms_file", "uri": "smsfile://a\n"})
@example("tts", 10**400)
@RELAXED
def test_no_value_does_anything_but_be_taken_or_refused(family, value):
    for check in TABLES[family].values():
        try:
            check(value)
        except Refused as refused:
            if refused.errno != EINVAL:
                raise


async def test_no_bytes_do_anything_but_be_taken_or_refused():
    async with open_probe(operations=Operations()) as probe:
        fd = await new_request(probe, "img")
        texts = [json.dumps({"key": "image", "value": ref}).encode() for ref in [*REFS, *BAD_REFS[:4]]]
        for text in texts:
            for at in range(0, len(text), 3):
                for changed in (text[:at], text[:at] + b"\xff" + text[at + 1 :], text[:at] + text[at + 1 :]):
                    assert await raw_param(probe, "img", fd, changed) in {0, -22, -13, -12}
