"""A secret shows itself in no way that programs print, store or send; a redactor finds it in any text."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import time
import traceback
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from spear.secrets import MASK, KeyMask, Redactor, Secret
from spear.telemetry import LogRedactor

VALUE = "canary-3f9-never-shown"


class Holder(BaseModel):
    key: Secret
    others: tuple[Secret, ...] = ()


@dataclasses.dataclass
class Plain:
    key: Secret


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda s: f"{s}",
        lambda s: f"{s:>40}",
        lambda s: f"{s!r}",
        lambda s: f"{s!a}",
        lambda s: "%s %r" % (s, s),  # noqa: UP031
        "{0} {0!r}".format,
        lambda s: repr([s, {s: s}, (s,)]),
        lambda s: repr(Plain(s)),
        lambda s: repr(dataclasses.asdict(Plain(s))),
        lambda s: repr(Holder(key=s, others=(s,))),
        lambda s: str(Holder(key=s).model_dump()),
        lambda s: Holder(key=s, others=(s, s)).model_dump_json(),
        lambda s: repr(Holder(key=s).model_copy(deep=True)),
        lambda s: repr(copy.copy(s)) + repr(copy.deepcopy([s])),
        lambda s: str(TypeAdapter(Secret).dump_python(s)),
        lambda s: str(TypeAdapter(Secret).json_schema()),
        lambda s: json.dumps({"key": s}, default=str),
        lambda s: logging.LogRecord("x", 1, "", 1, "%s %r", (s, s), None).getMessage(),
        lambda s: str(dir(s)),
    ],
)
def test_it_does_not_show(show: Any) -> None:
    assert VALUE not in show(Secret(VALUE))


@pytest.mark.parametrize(
    "store",
    [pickle.dumps, lambda s: pickle.dumps(s, protocol=0), lambda s: s.__reduce__(), json.dumps, orjson.dumps, vars],
)
def test_it_cannot_be_stored(store: Any) -> None:
    with pytest.raises(TypeError) as caught:
        store(Secret(VALUE))
    assert VALUE not in str(caught.value)


def test_a_traceback_with_its_local_variables_does_not_show_it() -> None:
    def fail(secret: Secret) -> None:
        kept = Plain(secret)
        raise RuntimeError(f"with {secret} and {kept}")

    try:
        fail(Secret(VALUE))
    except RuntimeError as error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        text = "".join(told.format())
    assert MASK in text
    assert VALUE not in text


def test_a_wrong_value_is_not_repeated() -> None:
    with pytest.raises(TypeError) as caught:
        Secret(VALUE.encode())  # type: ignore[arg-type]
    assert "canary" not in str(caught.value)
    with pytest.raises(ValidationError) as invalid:
        Holder(key=3)  # type: ignore[arg-type]
    assert "must be a string" in str(invalid.value)


def test_it_is_a_value() -> None:
    assert Secret(VALUE).reveal() == VALUE
    assert Secret(VALUE) == Secret(VALUE)
    assert hash(Secret(VALUE)) == hash(Secret(VALUE))
    assert Secret(VALUE) != Secret("another")
    assert Secret(VALUE) != VALUE
    assert bool(Secret(VALUE))
    assert not Secret("")
    assert Holder.model_validate({"key": VALUE}).key == Secret(VALUE)


# --- the redactor

TEXTS = st.text(max_size=30)
VALUES = st.text(min_size=4, max_size=40).filter(lambda text: len(text.strip()) >= 4)


@given(VALUES, TEXTS, TEXTS)
@example("abcd", "ab", "cd")
@example('a"b\\c', "", "")
def test_a_known_secret_does_not_survive(value: str, before: str, after: str) -> None:
    redact = Redactor([Secret(value), Secret("short"), Secret("")])
    known = value.strip()
    for written in (known, json.dumps(known)[1:-1]):
        shown = redact(f"{before}{written}{after}")
        assert written not in shown.replace(MASK, "\0")


@given(st.text(max_size=200))
def test_any_text_is_taken(text: str) -> None:
    assert isinstance(Redactor([])(text), str)


@pytest.mark.parametrize(
    "key",
    [
        "sk-abcdef123456",
        "sk-proj-************wxyz",
        "sk_live_4eC39HqLyjWDarjtT1",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "gsk_abcdefghijkl",
        "AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "0123456789abcdef0123456789abcdef",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "dGhpcyBpcyBhIHNlY3JldCBrZXkgMTIzNDU2Nzg5MA==",
    ],
)
@pytest.mark.parametrize("around", ["{}", "key {} is wrong", 'key="{}"', "Bearer {}", "authorization: bearer {};"])
def test_what_looks_like_a_key_is_masked(key: str, around: str) -> None:
    shown = Redactor([])(around.format(key))
    assert key not in shown
    assert shown == around.format(MASK)


def test_what_only_begins_like_a_key_takes_no_time() -> None:
    began = time.process_time()
    for beginning in ("-eyJaaaaaaaa", "eyJ-", "sk-", "a-", "bearer ", "://", "aA+"):
        Redactor([])(beginning * 20_000)
    assert time.process_time() - began < 2  # each beginning against all that follows: half a minute


@pytest.mark.parametrize(
    "text",
    [
        "The model `gpt-4o-mini` does not exist",
        "This model's maximum context length is 128000 tokens, however you requested 130012",
        "the risk of a task-based approach",
        'File "/usr/lib/python3.11/site-packages/httpcore2/_async/connection_pool.py", line 2',
        "the bearer",
        "basically fine",
    ],
)
def test_plain_words_stay(text: str) -> None:
    assert Redactor([Secret("https://api.example.com/v1")])(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "https://api.example.com:8443/v1/chat/completions failed",
        "could not reach api.example.com:8443",
        "no route to api.example.com",
        r"https:\/\/api.example.com:8443",
    ],
)
def test_an_address_is_found_in_parts(text: str) -> None:
    assert "api.example.com" not in Redactor([Secret("https://api.example.com:8443/v1/")])(text)


def test_a_redactor_shows_nothing() -> None:
    redact = Redactor([Secret(VALUE)])
    assert redact(f"with {VALUE}") == f"with {MASK}"
    shown = [repr(redact), str(redact), f"{redact}", *(repr(getattr(redact, name)) for name in redact.__slots__)]
    assert not any("canary" in text for text in shown)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="a redactor cannot be pickled"):
            pickle.dumps([redact], protocol)
    with pytest.raises(TypeError, match="a redactor cannot be pickled"):
        pickle.dumps(LogRedactor([Secret(VALUE)]))
    assert copy.copy(redact) is copy.deepcopy(redact) is redact


@given(st.text(min_size=16, max_size=40).filter(lambda key: len(key.strip()) >= 16 and "://" not in key), TEXTS, TEXTS)
@example('k"\\é' * 8, "", "")
def test_a_key_in_an_answer_is_masked_and_the_answer_stays_json(key: str, before: str, after: str) -> None:
    mask = KeyMask([Secret(key), Secret("https://api.example.com/v1/long")])
    said = f"{before} {key.strip()} {after}"
    for ascii_only in (True, False):
        data = mask(json.dumps([said], ensure_ascii=ascii_only).encode())
        assert key.strip() not in json.loads(data)[0].replace(MASK, "\0")


@pytest.mark.parametrize("text", ["none", "sk-local", "https://api.example.com/v1", "sk-abcdef1234567890", "other"])
def test_an_answer_is_not_garbled(text: str) -> None:
    secrets = [Secret("none"), Secret("sk-local"), Secret("https://api.example.com/v1"), Secret(""), Secret(VALUE)]
    data = text.encode()
    assert KeyMask(secrets)(data) is data
    assert KeyMask([])(data) is data


def test_a_mask_shows_nothing() -> None:
    mask = KeyMask([Secret(VALUE)])
    assert mask(f'["{VALUE}x"]'.encode()) == f'["{MASK}x"]'.encode()
    assert "canary" not in repr(mask) + "".join(repr(getattr(mask, name)) for name in mask.__slots__)
    with pytest.raises(TypeError, match="a mask cannot be pickled"):
        pickle.dumps(mask)


def test_the_longest_secret_goes_first() -> None:
    redact = Redactor([Secret("abcdef"), Secret("abcdefghij")])
    assert redact("abcdefghij") == MASK
