"""From where a reference may be fetched, and whether an answer is what it says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin

from spear.config import MediaConfig
from spear.egress import Origin, is_public_address, origin_of

from ._errors import not_allowed
from ._names import is_mime

# As narrow as that of a base URL, and with a query: what two parsers could read differently goes to neither.
_URL: Final = re.compile(
    r"(?P<origin>https?://[a-z0-9_.:\[\]-]+)(?P<target>(/[!-~]*)?)(?P<query>(\?[!-~]*)?)", re.IGNORECASE | re.ASCII
)
_NOT_IN_A_TARGET: Final = frozenset('"<>\\^`{|}')
_MEDIA: Final = frozenset({"image", "audio", "video"})


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """`origins`: of each that is allowed, whether it may have private addresses. Times in seconds."""

    origins: Mapping[Origin, bool]
    timeout_s: float
    idle_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where to go. `private`: its addresses may be any."""

    origin: Origin
    target: str
    private: bool


def policy_of(config: MediaConfig) -> FetchPolicy:
    """Raises ValueError, saying which origin is none."""
    origins: dict[Origin, bool] = {}
    for key, private in (("allow_origins", False), ("allow_private_origins", True)):
        for each in getattr(config, key):
            try:
                origins[origin_of(each)] = private
            except ValueError as error:
                raise ValueError(f"{key}: {each!r}: {error}") from None
    return FetchPolicy(origins, config.fetch_timeout_s, config.fetch_idle_s)


def place_of(url: str, policy: FetchPolicy) -> Place:
    """Raises `CallerError` (media_not_allowed)."""
    bare = url.partition("#")[0]
    match = _URL.fullmatch(bare)
    if match is None or _NOT_IN_A_TARGET & set(bare):
        raise not_allowed("the URL is not well-formed; expected https://host/path in ASCII, without a user name")
    try:
        origin = origin_of(match["origin"])
    except ValueError as error:
        raise not_allowed(f"the URL is not well-formed: {error}") from None
    private = policy.origins.get(origin)
    if private is None:
        raise not_allowed("nothing is fetched from the URL's origin (media.allow_origins)")
    return Place(origin, (match["target"] or "/") + match["query"], private)


def place_after(place: Place, location: str, policy: FetchPolicy) -> Place:
    """Where a redirect leads; raises as `place_of`."""
    origin = place.origin
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    try:
        url = urljoin(f"{origin.scheme}://{host}:{origin.port}{place.target}", location)
    except ValueError:
        raise not_allowed("the URL is redirected to what is no URL") from None
    after = place_of(url, policy)
    if origin.scheme == "https" and after.origin.scheme != "https":
        raise not_allowed("the URL is redirected from https:// to http://")
    return after


def check_addresses(addresses: list[str], place: Place) -> None:
    """All of them, or none is used: whoever can add one to an answer could otherwise choose."""
    if not place.private and not all(map(is_public_address, addresses)):
        raise not_allowed("the URL's host has an address that is not public (media.allow_private_origins)")


def checked_type(told: str, expected: str | None) -> str:
    """The type of an answer, if it is what the reference says, or without that, if it is media at all."""
    found = told.partition(";")[0].strip().lower()
    family = found.partition("/")[0]
    if not is_mime(found):  # it becomes a header, and part of a data: URL
        raise not_allowed("the answer of the URL does not say its type")
    if expected is None:
        if family not in _MEDIA:
            raise not_allowed("the answer of the URL is neither image, sound nor video by its type")
        return found
    wanted = expected.partition(";")[0].strip().lower()
    same = family == wanted.partition("/")[0] if family in _MEDIA else found == wanted
    if not same:
        raise not_allowed(f"the answer of the URL is not of the type {wanted} that the reference names")
    return found
