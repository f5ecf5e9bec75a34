"""Secrets: the one type that holds one, and taking them out of texts.

Keys and the addresses of backends are secrets. Whatever text comes from outside (a provider may echo the key in its
refusal) or from a traceback goes through a `Redactor` before anybody sees it; a good answer through a `KeyMask`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from json import dumps
from typing import Any, Final, NoReturn
from urllib.parse import quote

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

MASK: Final = "[secret]"


class Secret:
    """A string that does not show itself: no repr, no str, no format, no pickle, no copy into JSON.

    Only the egress side of a backend calls `reveal`. Two secrets compare equal by value, so that a reload can tell
    whether one changed.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError("a secret is a string")  # without the value: this text may be logged
        self.__value = value

    def reveal(self) -> str:
        return self.__value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.__value == other.__value

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self  # immutable: a copied configuration shares its secrets

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(lambda _: MASK)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "writeOnly": True}

    @classmethod
    def _validate(cls, value: object) -> Secret:
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return Secret(value)
        raise ValueError("must be a string")


_KEY_LIKE: Final = re.compile(
    r"""
      (?i: (?P<scheme> \b bearer \s+ ) [^\s"',;<>]+ )                     # what follows an authorization scheme
    | (?P<basic> \b Basic \s+ ) [A-Za-z0-9+/]{8,} ={0,2}
    | (?P<user> :// ) [^/\s@"']+ @                                         # user and password in an address
    | \b (?: sk | pk | rk | gsk | xai | hf | gh[opsur] ) [-_] [\w*-]{6,} (?: [.]+ [\w*-]+ )*  # vendors' prefixes
    | \b AIza [\w-]{20,}
    | (?<! [\w-] ) eyJ [\w-]{8,} \. [\w.-]*                              # a JSON web token; each run is tried once
    | (?<! [\w-] ) (?! req_[0-9a-f]{32} \b )                             # our own request ids may be seen
      (?= [A-Za-z_-]* [0-9] ) [A-Za-z0-9_-]{32,} ={0,2}                   # long, with a digit: hex, url-safe base64
    | (?<! [A-Za-z0-9+/] ) (?= [a-z0-9+/]* [A-Z] ) (?= [A-Z0-9+/]* [a-z] ) (?= [A-Za-z+/]* [0-9] )
      [A-Za-z0-9+/]{32,} ={0,2}                                           # base64; a path has hardly all three
    """,
    re.VERBOSE,
)
_SHORTEST: Final = 4
_SHORTEST_KEY: Final = 16
_MASK_BYTES: Final = MASK.encode()
_COMMON_PATHS: Final = frozenset(
    {"", "v1", "v2", "api", "api/v1", "openai", "openai/v1", "api/openai/v1", "v1beta/openai"}
)


class Redactor:
    """Replaces given secrets, and what looks like a key, by a mask.

    A secret is found as it is and as JSON or a URL would write it. One of fewer than four characters is not looked
    for: masking it would garble every text and protect nothing. Like a secret it shows nothing and cannot be pickled.
    """

    __slots__ = ("_mask_known",)

    def __init__(self, secrets: Iterable[Secret]) -> None:
        forms = {form for secret in secrets for form in _forms(secret.reveal())}
        # The longest first: a base URL may be the beginning of another.
        ordered = sorted(forms, key=len, reverse=True)
        self._mask_known = _masking(ordered)

    def __call__(self, text: str) -> str:
        return _KEY_LIKE.sub(_mask, self._mask_known(text))

    def __copy__(self) -> Redactor:
        return self

    def __deepcopy__(self, memo: object) -> Redactor:
        return self  # immutable

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a redactor cannot be pickled: it holds secrets")


class KeyMask:
    """Replaces given keys where an answer's bytes have them literally, and nothing else: what a model says must not be
    garbled. So addresses are not looked for, nor keys of fewer than sixteen characters, which are often words
    ("none"). A key stands inside a string, so what was JSON still is. Shows nothing and cannot be pickled.
    """

    __slots__ = ("_mask",)

    def __init__(self, secrets: Iterable[Secret]) -> None:
        keys = {key for secret in secrets if "://" not in (key := secret.reveal().strip())}
        forms = {dumps(key, ensure_ascii=ascii_only)[1:-1] for key in keys for ascii_only in (True, False)}
        long = sorted((form.encode("utf-8", "replace") for form in forms if len(form) >= _SHORTEST_KEY), key=len)
        self._mask = _masking_bytes(long[::-1])

    def __call__(self, data: bytes) -> bytes:
        return self._mask(data)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a mask cannot be pickled: it holds secrets")


def _masking_bytes(forms: list[bytes]) -> Callable[[bytes], bytes]:
    def mask(data: bytes) -> bytes:
        for form in forms:
            data = data.replace(form, _MASK_BYTES)  # the same object where there is none
        return data

    return mask


def _masking(forms: list[str]) -> Callable[[str], str]:
    """As a closure: the repr of a pattern, which debuggers and crash reports print, begins with its text."""
    if not forms:
        return str
    pattern = re.compile("|".join(map(re.escape, forms)))

    def mask(text: str) -> str:
        return pattern.sub(MASK, text)

    return mask


def _mask(match: re.Match[str]) -> str:
    if match["user"]:
        return f"{match['user']}{MASK}@"
    return (match["scheme"] or match["basic"] or "") + MASK


def _forms(value: str) -> Iterator[str]:
    """How a text may show `value`: plain, inside JSON, inside a URL; of an address also its host alone, with the port
    and without, and its path, which servers like to repeat, unless it is one that everybody has."""
    stripped = value.strip()
    found = [stripped]
    if "://" in stripped:
        authority, _, path = stripped.partition("://")[2].partition("/")
        host = re.sub(r":[0-9]*\Z", "", authority.rpartition("@")[2]).strip("[]")
        found += [stripped.rstrip("/"), authority, authority.lower()]
        if "." in host or ":" in host:  # a bare word like "localhost" stands in too many texts
            found += [host, host.lower()]
        if path.strip("/").lower() not in _COMMON_PATHS:
            found.append("/" + path.rstrip("/"))
    for form in found:
        ascii_only, unicode = dumps(form)[1:-1], dumps(form, ensure_ascii=False)[1:-1]
        for written in (form, ascii_only, unicode, repr(form)[1:-1], quote(form, safe=""), quote(form)):
            if len(written) >= _SHORTEST:
                yield written
