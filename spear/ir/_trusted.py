"""Models of values that need no check, since they come from our own code and types: at half the cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from ._model import Model

P = ParamSpec("P")
M = TypeVar("M", bound=Model)

_FIELDS_SET: Final = "__pydantic_fields_set__"


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
        make = field.default_factory
        if make is not None:
            fresh.append((name, make))  # type: ignore[arg-type]  # none of ours takes the other values
        defaults[name] = None if make is not None or field.is_required() else field.default
    new: Any = object.__new__
    put = object.__setattr__

    def make_model(**given: Any) -> Model:
        values = defaults | given
        for name, factory in fresh:
            if name not in given:
                values[name] = factory()
        model = new(cls)
        put(model, "__dict__", values)
        put(model, _FIELDS_SET, set(given))
        put(model, "__pydantic_extra__", None)
        put(model, "__pydantic_private__", None)
        return model  # type: ignore[no-any-return]

    return make_model  # type: ignore[return-value]
