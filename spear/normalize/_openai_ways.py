"""What the OpenAI-shaped ways of all operations beside chat share: who asks, forms, and the reply as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

from pydantic import JsonValue

from spear.ir import (
    CallerError,
    CanonicalError,
    Degradation,
    Meta,
    Operation,
    RequestEnvelope,
    RequestPayload,
    Routing,
    dump_json,
    invalid_request,
)

from ._limits import MAX_FORM_FIELDS
from ._openai_answer import openai_error
from ._openai_checks import Wire, wrong
from ._requirements import requirements_of


class Who(TypedDict, total=False):
    """What a request has beside its body."""

    task_id: str | None
    timeout_ms: int | None
    routing: Routing | None
    meta: Meta | None
    degradation: Degradation | None


@dataclass(frozen=True, slots=True)
class OpenAIReply:
    """What goes back over HTTP."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a multipart form. `mime` and `name` are what the caller says; the bytes are looked at, too."""

    field: str
    data: bytes
    mime: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form that was taken apart already: each field's texts in their order, and the files."""

    fields: Mapping[str, Sequence[str]]
    files: Sequence[FormFile] = ()


def envelope(payload: RequestPayload, *, stream: bool = False, **who: Unpack[Who]) -> RequestEnvelope:
    return RequestEnvelope(
        task_id=who.get("task_id"),
        operation=Operation(payload.kind),
        meta=who.get("meta") or Meta(source="openai"),
        routing=who.get("routing") or Routing(),
        requirements=requirements_of(payload, stream=stream),
        degradation=who.get("degradation") or Degradation(),
        timeout_ms=who.get("timeout_ms"),
        payload=payload,
    )


def json_reply(body: JsonValue, status: int = 200) -> OpenAIReply:
    return OpenAIReply(status, "application/json", dump_json(body))


def error_reply(error: CanonicalError) -> OpenAIReply:
    status, body = openai_error(error)
    return json_reply(body, status)


def taken(wire: Wire, names: Iterable[str]) -> Wire:
    """Those of `names` that are given and not null, taken out; a null counts as not given."""
    found: Wire = {}
    for name in names:
        value = wire.pop(name, None)
        if value is not None:
            found[name] = value
    return found


def text_of(value: JsonValue, field: str) -> str:
    if not isinstance(value, str):
        raise wrong(field, value, "a string")
    return value


# --- forms


def form_fields(form: Form, files: Iterable[str]) -> dict[str, list[str]]:
    """The fields, by their names without a trailing `[]`. Raises `CallerError` where there are too many, or a file
    stands where none of `files` is."""
    known = set(files)
    for file in form.files:
        if _plain(file.field) not in known:
            raise invalid_request(file.field[:64], f"is a file; files here are: {', '.join(sorted(known))}")
    fields: dict[str, list[str]] = {}
    count = 0
    for name, values in form.fields.items():
        if _plain(name) in known:
            raise invalid_request(name, "must be a file, not a text")
        count += len(values)
        fields.setdefault(_plain(name), []).extend(values)
    if count > MAX_FORM_FIELDS:
        raise invalid_request("body", f"has {count} fields, at most {MAX_FORM_FIELDS} are allowed")
    for name, texts in fields.items():
        for text in (name, *texts):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise invalid_request(name.encode("ascii", "replace").decode()[:64], "is not valid UTF-8") from None
    return fields


def form_file(form: Form, field: str) -> FormFile | None:
    """The file of that name, if it has one. Raises `CallerError` where there are several."""
    found = [file for file in form.files if _plain(file.field) == field]
    if len(found) > 1:
        raise invalid_request(field, f"{len(found)} files are given, one is taken")
    return found[0] if found else None


def one(fields: dict[str, list[str]], name: str) -> str | None:
    """The field's text, taken out; None where it is absent or empty."""
    values = fields.pop(name, [])
    if len(values) > 1:
        raise invalid_request(name, "is given more than once")
    return values[0] if values and values[0] else None


def integer(fields: dict[str, list[str]], name: str) -> int | None:
    text = one(fields, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise invalid_request(name, "must be an integer, at least 0")
    return int(text)


def flag(fields: dict[str, list[str]], name: str) -> bool:
    text = one(fields, name)
    if text not in {None, "true", "false"}:
        raise invalid_request(name, "must be true or false")
    return text == "true"


def left_over(fields: dict[str, list[str]]) -> Wire:
    """For the backend: a text, or a list of texts."""
    return {name: values[0] if len(values) == 1 else list(values) for name, values in fields.items() if values}


def must_be(field: str, choices: Iterable[str]) -> CallerError:
    return invalid_request(field, f"must be one of {', '.join(choices)}")


def _plain(name: str) -> str:
    return name.removesuffix("[]")
