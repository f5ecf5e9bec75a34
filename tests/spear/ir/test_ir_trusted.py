"""Models of trusted values are those that the class makes of the same values."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.ir import (
    Attempt,
    BackendInfo,
    ChatChoice,
    ChatMessage,
    ChatResult,
    ErrorCode,
    Operation,
    ResponseEnvelope,
    Result,
    Usage,
    trusted,
)

_MESSAGE = ChatMessage(role="assistant", content="x")
_RESULT = ChatResult(choices=(ChatChoice(index=0, message=_MESSAGE, finish_reason="stop"),))
_ATTEMPT = Attempt(backend="b", reason="chosen", outcome="ok", started_ms=0.5, elapsed_ms=1.0)
_CASES: list[tuple[Any, dict[str, Any]]] = [
    (
        Attempt,
        {
            "backend": "b",
            "key_id": None,
            "reason": "chosen",
            "outcome": "failed",
            "started_ms": 0.5,
            "elapsed_ms": 1.0,
            "error_code": ErrorCode.TIMEOUT,
        },
    ),
    (BackendInfo, {"name": "b", "kind": "stub", "attempts": (_ATTEMPT,), "generation": 3}),
    (Result, {"payload": _RESULT}),
    (ResponseEnvelope, {"request_id": "r", "operation": Operation.CHAT_COMPLETIONS, "result": Result(payload=_RESULT)}),
    (ChatMessage, {"role": "assistant", "content": "x"}),
    (ChatChoice, {"index": 0, "message": _MESSAGE, "finish_reason": "stop"}),
    (ChatResult, {"choices": _RESULT.choices}),
    (Usage, {"input_tokens": 1, "output_tokens": 2, "estimated": True}),
    (Usage, {"extra": {"a": [1]}}),
    (Usage, {}),
]


def _same(made: Any, checked: Any) -> None:
    assert type(made) is type(checked)
    assert made == checked
    assert list(vars(made)) == list(vars(checked))
    assert made.model_fields_set == checked.model_fields_set
    assert made.model_dump_json() == checked.model_dump_json()
    assert made.model_dump_json(exclude_unset=True) == checked.model_dump_json(exclude_unset=True)
    assert made.model_dump_json(exclude_defaults=True) == checked.model_dump_json(exclude_defaults=True)
    assert repr(made) == repr(checked)


@pytest.mark.parametrize(("kind", "values"), _CASES, ids=lambda each: getattr(each, "__name__", ""))
def test_it_is_what_the_class_makes(kind: Any, values: dict[str, Any]) -> None:
    make = trusted(kind)
    _same(make(**values), kind(**values))
    _same(make(**values).model_copy(), kind(**values))
    _same(copy.deepcopy(make(**values)), kind(**values))
    _same(pickle.loads(pickle.dumps(make(**values))), kind(**values))


@given(
    st.fixed_dictionaries(
        {}, optional={"input_tokens": st.integers(0), "cost": st.floats(0, 9), "estimated": st.booleans()}
    )
)
def test_whichever_fields_are_given(values: dict[str, Any]) -> None:
    _same(trusted(Usage)(**values), Usage(**values))


def test_no_two_share_what_can_be_changed() -> None:
    make = trusted(Usage)
    one, two = make(), make()
    one.extra["a"] = 1
    assert two.extra == make().extra == {}
    copied = one.model_copy(update={"cost": 1.0})
    assert one.model_fields_set == set()
    assert copied.model_fields_set == {"cost"}
    respond = trusted(ResponseEnvelope)
    first, second = (
        respond(request_id="r", operation=Operation.CHAT_COMPLETIONS, result=Result(payload=_RESULT)) for _ in range(2)
    )
    first.usage.extra["a"] = 1
    assert second.usage.extra == {}


def test_it_is_frozen_like_any_other() -> None:
    made = trusted(Usage)(input_tokens=1)
    with pytest.raises(ValueError, match="frozen"):
        made.input_tokens = 2  # type: ignore[misc]
