"""The egress policy: where a backend's traffic may go, and how much may come back. Pure.

One instance talks to one origin, that of its own base URL, and to nothing else: no redirect is followed, no proxy of
the environment is used, and the transport refuses any other origin. Plain HTTP is for a backend on the host's own
side (`hosting = "local"`) or where the host said so (`allow_plaintext`). A message here never repeats a URL: it is a
secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from spear.ir import Hosting

MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
"""Of the body of an answer."""
MAX_STREAM_BYTES: Final = 64 * 1024 * 1024
"""Of all events of one stream, with their framing."""
MAX_ERROR_BYTES: Final = 64 * 1024
"""Of the body of a refusal; what is longer is not read."""
KEEPALIVE_S: Final = 4.0
"""How long an idle connection is kept: less than the five seconds after which common servers close it."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

# Narrow on purpose: what two parsers could read differently (backslashes, userinfo, blanks, other alphabets) is refused
# before any of them sees it.
_BASE_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?)(:(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(/[A-Za-z0-9._~%!$&'()*+,;=:@-]*)*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, repr=False)
class Origin:
    """Scheme, host and port, lower case, the port always given. Without a repr of its content: it is a secret."""

    scheme: str
    host: str
    """Without the brackets of an IPv6 address."""
    port: int


def check_base_url(url: str, *, hosting: Hosting, allow_plaintext: bool) -> None:
    """Raise ValueError, saying what is wrong without repeating the URL, unless a backend may be called there."""
    origin = origin_of(url)
    if origin.scheme == "http" and hosting is not Hosting.LOCAL and not allow_plaintext:
        raise ValueError(
            'plain http:// needs hosting = "local" or allow_plaintext = true; everything that is sent could be read '
            "on the way"
        )


def origin_of(url: str) -> Origin:
    """The origin of a base URL, or ValueError as in `check_base_url`."""
    match = _BASE_URL.fullmatch(url)
    if match is None:
        raise ValueError(_complaint(url))
    scheme = match["scheme"].lower()
    host = match["host"].strip("[]").lower()
    if match["host"].startswith("[") and not _is_ipv6(host):
        raise ValueError("what stands in brackets is not an IPv6 address")
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65_535:
        raise ValueError("the port must be from 1 to 65535")
    return Origin(scheme, host, port)


def is_public_address(address: str) -> bool:
    """Whether an IP address lies in the public Internet: not private, loopback, link-local, shared, multicast,
    reserved, nor one of these inside an IPv6 form of IPv4. For URLs that guests give; false for what is no address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public_address(str(parsed.ipv4_mapped))
        inner = _tunnelled_ipv4(parsed)
        if inner is not None and not is_public_address(str(inner)):
            return False
    if any(parsed in network for network in _NOT_PUBLIC if network.version == parsed.version):
        return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def _tunnelled_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address.sixtofour is not None:
        return address.sixtofour
    if address.packed.startswith(_NAT64):
        return IPv4Address(address.packed[-4:])
    return address.teredo[1] if address.teredo is not None else None


# Public to some releases of `ipaddress`, and not: site-local, a provider's own equipment, relays, documentation.
_NOT_PUBLIC: Final = tuple(map(ip_network, ("fec0::/10", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))
_NAT64: Final = bytes.fromhex("0064ff9b0000000000000000")


def _is_ipv6(host: str) -> bool:
    try:
        return isinstance(ip_address(host), IPv6Address)
    except ValueError:
        return False


def _complaint(url: str) -> str:
    """Which rule the URL breaks first."""
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not url.isascii() or any(character <= " " or character in '\x7f"<>\\^`{|}' for character in url):
        return "must be plain ASCII without blanks; write a host of another alphabet in its xn-- form"
    if not separator or scheme.lower() not in _DEFAULT_PORTS:
        return "must begin with https:// or http://"
    if "@" in authority:
        return "must not have a user name or password; a key goes into credentials"
    if "?" in rest or "#" in rest:
        return "must not have a query or a fragment"
    if not authority or authority.startswith(":"):
        return "has no host"
    return "the host or the port is not well-formed; an example is https://api.example.com/v1"
