from __future__ import annotations

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spear.egress import Origin, check_base_url, is_public_address, origin_of
from spear.ir import Hosting


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.example.com", Origin("https", "api.example.com", 443)),
        ("https://API.Example.com/v1/", Origin("https", "api.example.com", 443)),
        ("HTTPS://api.example.com:8443/a/b", Origin("https", "api.example.com", 8443)),
        ("http://127.0.0.1:11434", Origin("http", "127.0.0.1", 11434)),
        ("http://[::1]:8000/v1", Origin("http", "::1", 8000)),
        ("http://my_service:80/v1", Origin("http", "my_service", 80)),
        ("https://xn--bcher-kva.example/v1", Origin("https", "xn--bcher-kva.example", 443)),
    ],
)
def test_origin(url: str, origin: Origin) -> None:
    assert origin_of(url) == origin
    check_base_url(url, hosting=Hosting.LOCAL, allow_plaintext=False)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "must begin with https:// or http://"),
        ("api.example.com/v1", "must begin with"),
        ("ftp://api.example.com", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("https://", "has no host"),
        ("https:///v1", "has no host"),
        ("https://:443/v1", "has no host"),
        ("https://user:pass@api.example.com/v1", "user name or password"),
        ("https://user@api.example.com", "user name or password"),
        ("https://api.example.com/v1?key=abc", "query or a fragment"),
        ("https://api.example.com/v1#x", "query or a fragment"),
        ("https://api.example.com:0/v1", "port"),
        ("https://api.example.com:70000/v1", "port"),
        ("https://api.example.com:port/v1", "port is not well-formed"),
        ("https://-a.example", "not well-formed"),
        ("https://[::1", "not well-formed"),
        ("https://[12345::1]/", "not an IPv6 address"),
        ("https://bücher.example/v1", "xn--"),
        ("https://api.example.com/v1 ", "blanks"),
        ("https://api.example.com/\nv1", "blanks"),
        ("https://api.example.com\\@evil.example/", "blanks"),
    ],
)
def test_refused_without_repeating_it(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
        check_base_url(url, hosting=Hosting.LOCAL, allow_plaintext=True)
    assert says in str(caught.value)
    for part in ("evil", "user:pass", "passwd", "key=abc", "bücher"):
        assert part not in str(caught.value)


def test_plaintext() -> None:
    check_base_url("http://10.0.0.5/v1", hosting=Hosting.LOCAL, allow_plaintext=False)
    check_base_url("http://api.example.com/v1", hosting=Hosting.REMOTE, allow_plaintext=True)
    check_base_url("https://api.example.com/v1", hosting=Hosting.REMOTE, allow_plaintext=False)
    with pytest.raises(ValueError, match='needs hosting = "local" or allow_plaintext = true'):
        check_base_url("http://api.example.com/v1", hosting=Hosting.REMOTE, allow_plaintext=False)


def test_an_origin_does_not_show_itself() -> None:
    assert "example" not in repr(Origin("https", "api.example.com", 443))


URLS = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["https://", "http://", "HTTP://", "https:/", "https:", ""]),
    st.sampled_from(["", "a@", "a:b@", "%41@"]),
    st.one_of(st.text("abcXYZ019.-_[]:%@\\", max_size=12), st.sampled_from(["localhost", "[::1]", "1.2.3.4"])),
    st.sampled_from(["", ":80", ":0", ":x", ":99999", ":", ":08"]),
    st.text("/abc.%?#@:\\ é", max_size=8),
)


@given(st.one_of(st.text(max_size=60), URLS))
@example("https://a.example:443/v1")
def test_two_parsers_agree_on_what_is_accepted(url: str) -> None:
    """The policy reads a URL here, the transport reads it in httpx: they must never see two different hosts."""
    try:
        origin = origin_of(url)
    except ValueError:
        return
    parsed = httpx.URL(url)
    assert parsed.scheme == origin.scheme
    assert parsed.raw_host.decode().lower() == origin.host
    assert (parsed.port or {"http": 80, "https": 443}[origin.scheme]) == origin.port
    assert parsed.userinfo == b""
    assert parsed.query == b""


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::10.0.0.1",
        "2001:db8::1",
        "fec0::1",
        "192.0.0.8",
        "192.88.99.1",
        "3fff::1",
        "localhost",
        "",
        "1.2.3",
    ],
)
def test_not_public(address: str) -> None:
    assert not is_public_address(address)
