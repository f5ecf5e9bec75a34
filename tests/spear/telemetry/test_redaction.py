"""No secret in what is about to be written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spear.secrets import MASK, Secret
from spear.telemetry import LogRedactor
from spear.telemetry._redact import names_a_secret


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abcdef", f"Authorization: Bearer {MASK}"),
        ("Basic dXNlcjpwYXNz", f"Basic {MASK}"),
        ("bad key sk-proj-Ab12Cd34.", f"bad key {MASK}."),
        ("https://me:pass@host/v1", f"https://{MASK}@host/v1"),
        (f"key {'a1' * 20}", f"key {MASK}"),
        ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.c2ln ok", f"jwt {MASK} ok"),
        ("hf_AbCdEf12", MASK),
    ],
)
def test_what_looks_like_a_secret(text: str, clean: str) -> None:
    assert LogRedactor().text(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "the task-runner took 3 ms; a risk-averse plan",
        "req_0192f3c4d5e6a1b2c3d4e5f60718293a",
        "spear.backends[2].weight: is missing",
        "a" * 60,
        "the basic functionality",
        "https://docs.python.org/3/library",
        "openai_chat_completion",
    ],
)
def test_what_does_not(text: str) -> None:
    assert LogRedactor().text(text) == text


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "Proxy-Authorization",
        "api_key",
        "X-API-Key",
        "openai_api_key",
        "token",
        "access_token",
        "password",
        "client_secret",
        "base_url",
        "set-cookie",
    ],
)
def test_keys_of_secrets(key: str) -> None:
    assert names_a_secret(key)
    assert LogRedactor()(None, "info", {"event": "e", key: "x", "deep": [{key: ["x"]}]}) == {
        "event": "e",
        key: MASK,
        "deep": [{key: MASK}],
    }


@pytest.mark.parametrize("key", ["tokens", "input_tokens", "key_id", "backend", "credential"])
def test_keys_of_other_things(key: str) -> None:
    assert not names_a_secret(key)


def test_numbers_under_such_a_key_stay() -> None:
    assert LogRedactor().value({"time_to_first_token": 0.25}) == {"time_to_first_token": 0.25}


def test_known_secrets_of_every_look() -> None:
    redactor = LogRedactor([Secret("hunter2!"), Secret("https://Inner.example:8443/v1/"), Secret("abc")])
    assert redactor.text("said hunter2!, hunter2%21") == f"said {MASK}, {MASK}"
    assert redactor.text("GET https://Inner.example:8443/v1/chat") == f"GET {MASK}chat"
    assert redactor.text("cannot resolve inner.example; https://Inner.example:8443/v1 is down") == (
        f"cannot resolve {MASK}; {MASK} is down"
    )
    assert redactor.text("abc is too short to be one") == "abc is too short to be one"
    assert "hunter" not in repr(redactor)


def test_a_secret_object_and_a_broken_repr() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("sk-canary-123456")

    assert LogRedactor().value([Secret("x"), Broken()]) == [MASK, "<Broken, whose repr raises RuntimeError>"]


def test_depth_is_bounded() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "[too deep]" in repr(LogRedactor().value(loop))


SECRETS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=4, max_size=30)


@given(SECRETS, st.data())
def test_a_known_secret_is_nowhere(secret: str, data: st.DataObject) -> None:
    assume(secret not in MASK and MASK not in secret)
    around = st.text(max_size=5).map(lambda text: f"{text}{secret}{text}")
    leaf = st.one_of(around, st.integers(), st.none(), around.map(ValueError), around.map(lambda t: t.encode()))
    tree = st.recursive(leaf, lambda inner: st.lists(inner) | st.dictionaries(around, inner) | st.tuples(inner))
    clean = LogRedactor([Secret(secret)]).value(data.draw(tree))
    for text in texts(clean):
        assert secret not in text.replace(MASK, "")
        assert repr(secret)[1:-1] not in text.replace(MASK, "")


def texts(value: Any) -> Any:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value
    else:
        assert value is None or isinstance(value, int | float)
