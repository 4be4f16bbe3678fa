"""Stand-ins: a second entry for each handler, with the same match and interpreter, under a name that binfmtd reserves.

By default both entries are registered at all times.  When another program removes, disables or replaces one of them,
the other serves, so no exec fails.

Other programs that manage binfmt_misc use only the proper name.  They remove an entry and register it again
microseconds later, and fail with EEXIST if binfmtd has registered it meanwhile.  So binfmtd registers the proper entry
again only when no other program touches it; until then the stand-in serves.

Example: handler ``qemu-arm`` has the proper entry ``qemu-arm`` and the stand-in ``.binfmtd~qemu-arm``.  The leading dot
hides a stand-in from ``ls`` and from ``cat qemu-*``; ``ls -A`` shows it.
"""

from functools import lru_cache

from binfmtd.errors import FormatError
from binfmtd.model.handler import NAME_BYTES, check_name

PREFIX = ".binfmtd~"


@lru_cache(1024)
def stand_in_name(name: str) -> str:
    """Return the name of a handler's stand-in, or of a stand-in's helper.

    It contains a digest if the plain name would be longer than NAME_BYTES.
    """
    plain = PREFIX + name
    encoded = name.encode("utf-8", "surrogateescape")
    if len(PREFIX) + len(encoded) <= NAME_BYTES:
        return plain
    from hashlib import sha256  # imported here, since it loads OpenSSL

    return PREFIX + sha256(encoded).hexdigest()[:16]


def is_stand_in(name: str) -> bool:
    """Return True if an entry of this name is a stand-in or a helper, of this or of another daemon."""
    return name.startswith(PREFIX)


def check_handler_name(name: str) -> None:
    """Raise FormatError for a name that a handler may not have, such as that of a stand-in."""
    check_name(name)
    if is_stand_in(name):
        raise FormatError(f"name {name!r} begins with {PREFIX!r}, reserved for binfmtd's stand-ins: choose another")
