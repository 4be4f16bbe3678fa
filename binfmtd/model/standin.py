"""Stand-ins: a second entry for each handler, with the same match and interpreter, under a name of binfmtd's own.

By default both are registered at all times: when another program removes, disables or replaces one of them, the other
serves, so no execution fails.  Programs that manage binfmt_misc know the proper name alone.  They remove an entry and
register it again microseconds later, and fail with EEXIST if binfmtd was faster; so binfmtd registers the proper entry
again only when no other program touches it, and the stand-in serves meanwhile.

The leading dot hides a stand-in from ``ls`` and from ``cat qemu-*``; ``ls -A`` shows it.
"""

from binfmtd.errors import FormatError
from binfmtd.model.handler import NAME_BYTES, check_name

PREFIX = ".binfmtd~"


def stand_in_name(name: str) -> str:
    """The helper name for an entry; a digest where the plain one would be longer than a name can be."""
    plain = PREFIX + name
    encoded = name.encode("utf-8", "surrogateescape")
    if len(PREFIX) + len(encoded) <= NAME_BYTES:
        return plain
    from hashlib import sha256  # which loads OpenSSL

    return PREFIX + sha256(encoded).hexdigest()[:16]


def is_stand_in(name: str) -> bool:
    """Whether an entry of this name is a helper, of this or of an earlier daemon."""
    return name.startswith(PREFIX)


def check_handler_name(name: str) -> None:
    """Raise FormatError for a name that a handler may not have."""
    check_name(name)
    if is_stand_in(name):
        raise FormatError(f"name {name!r} begins with {PREFIX!r}, which is the daemon's own: choose another")
