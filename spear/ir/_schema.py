"""The JSON Schema of the contract."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from ._envelope import RequestEnvelope, ResponseEnvelope
from ._errors import CanonicalError
from ._events import StreamEvent


def json_schema() -> dict[str, Any]:
    """One document (JSON Schema 2020-12) whose `$defs` describe requests, responses, stream events and errors."""
    roots: dict[str, TypeAdapter[Any]] = {
        "RequestEnvelope": TypeAdapter(RequestEnvelope),
        "ResponseEnvelope": TypeAdapter(ResponseEnvelope),
        "StreamEvent": TypeAdapter(StreamEvent),
        "CanonicalError": TypeAdapter(CanonicalError),
    }
    references, shared = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in roots.items()],
        ref_template="#/$defs/{model}",
    )
    definitions = dict(shared["$defs"])
    for (name, _mode), schema in references.items():
        if schema.get("$ref") != f"#/$defs/{name}":
            definitions[name] = schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Spear canonical IR, version 1",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in roots],
        "$defs": dict(sorted(definitions.items())),
    }
