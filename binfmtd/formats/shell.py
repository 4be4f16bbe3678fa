r"""A POSIX shell script that registers entries, for hosts where no better program does so.

* Each entry is one printf with ``%s``: echo treats backslashes differently from shell to shell, and the kernel takes
  one write for one entry.
* An existing entry of the name is removed first, as systemd-binfmt does; until the new one is registered there is none.
* If the kernel refuses an entry, the shell reports it, the other entries are registered, and the exit status is 1.
"""

from collections.abc import Iterable

from binfmtd.errors import FormatError
from binfmtd.formats.binfmt_d import GENERATED
from binfmtd.formats.register_line import encode_line, to_bytes
from binfmtd.model.handler import Registration

_HEAD = (
    b"""\
#!/bin/sh
%s
# Usage: sh SCRIPT [DIRECTORY], the mount point of binfmt_misc; it is mounted there if necessary.
mount=${1:-/proc/sys/fs/binfmt_misc}
status=0

register() { # NAME LINE
    if [ -e "$mount/$1" ]; then printf '%%s' -1 >"$mount/$1"; fi
    printf '%%s' "$2" >"$mount/register" || status=1
}

[ -e "$mount/register" ] || mount -t binfmt_misc binfmt_misc "$mount" || exit 1
"""
    % GENERATED
)


def render_script(entries: Iterable[tuple[str, Registration]]) -> bytes:
    """Return the script; raises FormatError, which names the entry, for one that the kernel could not take."""
    return b"".join([_HEAD, *(_call(name, registration) for name, registration in entries), b"exit $status\n"])


def _call(name: str, registration: Registration) -> bytes:
    try:
        line = encode_line(name, registration, readable=True)
    except FormatError:
        try:
            line = encode_line(name, registration)
        except FormatError as error:
            raise FormatError(f"entry {name!r}: {error}") from error
    return b"register %s %s\n" % (_quoted(to_bytes(name)), _quoted(line))


def _quoted(text: bytes) -> bytes:
    return b"'" + text.replace(b"'", b"'\\''") + b"'"
