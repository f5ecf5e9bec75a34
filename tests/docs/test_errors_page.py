"""The table of errors says what spear.ir and normalization do."""

from __future__ import annotations

from typing import Final

import pytest

import spear.ir
from spear.ir import HTTP_STATUS, RETRYABLE, ErrorCode, SpearError, error_to_exception, make_error
from spear.normalize import body_from_error
from tests.docs._pages import DOCS, rows, section

TEXT: Final = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
TABLE: Final = {row[0].strip("`"): row[1:] for row in rows(TEXT.partition("\n## ")[0])}


def test_every_code_is_there_in_order() -> None:
    assert list(TABLE) == [code.value for code in ErrorCode]


@pytest.mark.parametrize("code", ErrorCode)
def test_retry_status_and_class(code: ErrorCode) -> None:
    _, retry, status, raised, _ = TABLE[code.value]
    assert retry == ("yes" if code in RETRYABLE else "no")
    assert int(status) == HTTP_STATUS[code]
    assert raised == f"`{type(error_to_exception(make_error(code, 'x'))).__name__}`"


@pytest.mark.parametrize("code", ErrorCode)
def test_what_a_guest_reads(code: ErrorCode) -> None:
    body = body_from_error(make_error(code, "why"))["error"]
    assert isinstance(body, dict)
    if "code" in body:
        assert body == {"code": code.value, "message": "why"}
        begins = "the code"
    else:
        begins = f"`{str(body['message']).removesuffix(' why')}`"
    assert TABLE[code.value][4].split(",")[0] == begins


def test_every_class_of_the_tree_is_there() -> None:
    tree = {name for name, value in vars(spear.ir).items() if isinstance(value, type) and issubclass(value, SpearError)}
    assert {row[0].strip("`") for row in rows(section(TEXT, "## The classes"))} == tree - {"SpearError"}
