"""Addresses of sockets, as people write them: ``127.0.0.1:9427`` or ``[::1]:9427``.

Host names are not accepted: a look-up in the network can take any time.
"""

from ipaddress import ip_address

from binfmtd.errors import FormatError


def parse_address(text: str) -> tuple[str, int]:
    """Return address and port; raises FormatError."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    number = int(port) if len(port) <= 5 and port.isascii() and port.isdigit() else -1
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        address = None
    if address is None or bracketed != (address.version == 6) or not 1 <= number <= 65535:
        raise FormatError(
            f"{text!r} is not an address with a port: write 127.0.0.1:9427 or [::1]:9427, or [::]:9427 for all "
            "addresses of this host"
        )
    return str(address), number
