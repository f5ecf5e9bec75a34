"""Which classes of message an actor class accepts, read from `Actor[...]`."""

from __future__ import annotations

import sys
import types
import typing

__all__ = ["accepted_types"]


def accepted_types(cls: type, base: type) -> tuple[type, ...]:
    """The classes M stands for in `class X(base[M])`; `(object,)` where that cannot be told."""
    for klass in cls.__mro__:
        for alias in getattr(klass, "__orig_bases__", ()) if "__orig_bases__" in vars(klass) else ():
            if typing.get_origin(alias) is base:
                found: list[type] = []
                if _flatten(typing.get_args(alias)[0], klass.__module__, found):
                    return tuple(dict.fromkeys(found))
                return (object,)
    return (object,)


def _flatten(hint: object, module: str, found: list[type]) -> bool:
    """False if a part of the hint is no class that isinstance can test."""
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        try:
            # a forward reference in our own class header, like those typing.get_type_hints evaluates
            hint = eval(hint, vars(sys.modules[module]))
        except (NameError, AttributeError, SyntaxError, TypeError, KeyError):
            return False
    if hasattr(hint, "__value__"):  # a `type` alias of Python 3.12
        hint = hint.__value__
    origin = typing.get_origin(hint)
    if origin is typing.Union or origin is types.UnionType:
        return all(_flatten(part, module, found) for part in typing.get_args(hint))
    if origin is typing.Annotated:
        return _flatten(typing.get_args(hint)[0], module, found)
    kind = origin if origin is not None else hint
    if kind is None:
        kind = types.NoneType
    if not isinstance(kind, type) or kind in (object, typing.Any):
        return False
    found.append(kind)
    return True
