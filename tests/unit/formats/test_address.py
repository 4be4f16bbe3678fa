"""The address for HTTP: an IP address and a port."""

import pytest

from binfmtd.errors import FormatError
from binfmtd.formats.address import parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9427", ("127.0.0.1", 9427)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("[::]:65535", ("::", 65535)),
        ("[::0001]:80", ("::1", 80)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
    ],
)
def test_an_address_and_a_port(text: str, address: tuple[str, int]) -> None:
    """An IPv4 address or an IPv6 address in brackets is accepted, with a port."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "9427", ":9427", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:+1"),
        *("127.0.0.1: 1", "[127.0.0.1]:1", "::1:80", "[::1]", "[::1:80", "localhost:80", "*:80", "1.2.3:80"),
        *("127.0.0.1:\u0661", "http://127.0.0.1:80", "127.0.0.1:999999999999"),
    ],
)
def test_what_is_none(text: str) -> None:
    """Host names and incomplete addresses are refused, and the message has valid examples."""
    with pytest.raises(FormatError, match=r"write 127\.0\.0\.1:9427 or \[::1\]:9427"):
        parse_address(text)
