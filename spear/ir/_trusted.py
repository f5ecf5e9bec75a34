"""Models of values that need no check, since they come from our own code and types: at half the cost."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from pydantic import BaseModel

from ._model import Model

P = ParamSpec("P")
M = TypeVar("M", bound=Model)

_SLOTS: Final = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
_SETTERS: Final[list[Any]] = [vars(BaseModel)[name].__set__ for name in _SLOTS]
"""All that a model consists of; set past `frozen`. A test compares the result with what the class makes."""


def trusted(kind: Callable[P, M]) -> Callable[P, M]:
    """A maker of models of `kind`, a class, that checks nothing: what it makes equals what the class itself would
    have made of the same right values. Only for values whose types a type checker has seen; what came from outside
    goes through the class."""
    assert isinstance(kind, type)
    assert issubclass(kind, Model)
    cls: type[Model] = kind
    defaults: dict[str, Any] = {}
    fresh: list[tuple[str, Callable[[], Any]]] = []
    for name, field in cls.model_fields.items():  # in this order they are dumped
        defaults[name] = None
        if field.default_factory is not None:
            fresh.append((name, field.default_factory))  # type: ignore[arg-type]  # none of ours takes other values
        elif field.is_required():
            continue
        elif field.default == () or isinstance(field.default, str | int | float | None):
            defaults[name] = field.default
        else:
            fresh.append((name, partial(deepcopy, field.default)))
    new: Any = object.__new__
    put_values, put_given, put_extra, put_private = _SETTERS

    def make_model(**given: Any) -> Model:
        values = defaults | given
        for name, factory in fresh:
            if name not in given:
                values[name] = factory()
        model = new(cls)
        put_values(model, values)
        put_given(model, set(given))
        put_extra(model, None)
        put_private(model, None)
        return model  # type: ignore[no-any-return]

    return make_model  # type: ignore[return-value]
