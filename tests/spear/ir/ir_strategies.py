"""Hypothesis strategies for JSON values and for every IR model, read off the models' own annotations, so that a model
or a field that is added is tested without a line here."""

from __future__ import annotations

import base64
import enum
import functools
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pydantic import JsonValue, PlainValidator, StringConstraints
from pydantic.fields import FieldInfo

import spear.ir as ir

MODELS = sorted(
    {
        item
        for item in vars(ir).values()
        if isinstance(item, type) and issubclass(item, ir.Model) and item is not ir.Model
    },
    key=lambda model: model.__name__,
)


def examples(count: int) -> settings:
    """So many examples; on a busy machine a slow one is no failure."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=count, deadline=None, suppress_health_check=slow)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
)
json_values: st.SearchStrategy[JsonValue] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
json_objects: st.SearchStrategy[dict[str, JsonValue]] = st.dictionaries(st.text(max_size=8), json_values, max_size=5)


def identical(left: object, right: object) -> bool:
    """Equal, with the types equal too: 1, 1.0 and True are three things."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(identical(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(identical, left, right))
    return left == right


@functools.cache
def instances(model: type[ir.Model]) -> st.SearchStrategy[Any]:
    """Instances of a model, made the way a caller makes them."""
    fields = {name: _field(model, name, info) for name, info in model.model_fields.items()}
    if model is ir.RequestEnvelope:
        del fields["operation"], fields["version"]
        return st.fixed_dictionaries(fields).map(
            lambda values: ir.RequestEnvelope(operation=ir.Operation(values["payload"].kind), **values)
        )
    if model is ir.Result:
        return st.one_of(
            st.builds(ir.Result, payload=fields["payload"].filter(lambda value: value is not None)),
            st.builds(ir.Result, error=fields["error"].filter(lambda value: value is not None)),
        )
    if model is ir.ChatMessage:
        return st.one_of(_but(model, fields, "content"), _but(model, fields, "content_parts"))
    if model is ir.EmbeddingsResult:
        some = {name: fields[name].filter(lambda value: value is not None) for name in ("vectors", "base64")}
        given = {**fields, **some}
        return st.one_of(_but(model, given, "vectors"), _but(model, given, "base64"))
    return st.builds(model, **fields)


def _but(model: type[ir.Model], fields: dict[str, st.SearchStrategy[Any]], left_out: str) -> st.SearchStrategy[Any]:
    return st.builds(model, **{name: field for name, field in fields.items() if name != left_out})


def _field(model: type[ir.Model], name: str, info: FieldInfo) -> st.SearchStrategy[Any]:
    if model is ir.InlineMedia and name == "data":
        return st.binary(max_size=20).map(lambda data: base64.b64encode(data).decode())
    return _strategy(info.annotation, tuple(info.metadata))


def _strategy(annotation: Any, metadata: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata = (*more, *metadata)
    if any(isinstance(item, PlainValidator) for item in metadata):
        return json_values
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, types.UnionType}:
        return st.one_of([_strategy(argument) for argument in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return st.lists(_strategy(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(_strategy(arguments[0]), _strategy(arguments[1]), max_size=3)
    if isinstance(annotation, type):
        return _scalar(annotation, metadata)
    raise NotImplementedError(f"no strategy for {annotation}")


def _scalar(kind: type, metadata: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if issubclass(kind, ir.Model):
        return st.deferred(lambda: instances(kind))
    if issubclass(kind, enum.Enum):
        return st.sampled_from(list(kind))
    if kind is type(None):
        return st.none()
    if kind is bool:
        return st.booleans()
    bounds: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    pattern = None
    for item in _flat(metadata):
        match item:
            case annotated_types.Ge(ge=least):
                bounds["min_value"] = least
            case annotated_types.Le(le=most):
                bounds["max_value"] = most
            case annotated_types.MinLen(min_length=least):
                sizes["min_size"] = least
            case annotated_types.MaxLen(max_length=most):
                sizes["max_size"] = most
            case StringConstraints():
                pattern, sizes["max_size"] = item.pattern, item.max_length or 300
            case _ if getattr(item, "pattern", None):
                pattern = item.pattern
            case _:
                raise NotImplementedError(f"no strategy for {item!r}")
    if kind is int:
        return st.integers(**bounds)
    if kind is float:
        return st.floats(allow_nan=False, allow_infinity=False, **bounds)
    if kind is str and pattern is not None:
        longest = sizes.get("max_size", 300)
        fitting = st.from_regex(pattern, fullmatch=True).map(lambda text: text.rstrip("\n"))
        return fitting.filter(lambda text: len(text) <= longest)
    if kind is str:
        return st.text(min_size=sizes.get("min_size", 0), max_size=min(sizes.get("max_size", 12), 12))
    raise NotImplementedError(f"no strategy for {kind}")


def _flat(metadata: tuple[Any, ...]) -> list[Any]:
    flat: list[Any] = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            flat += item.metadata
        elif item is not None:
            flat.append(item)
    return flat
