"""Remedies for a file that cannot be read, written or made.

They follow from the errno; the path matters only on a read-only file system in a container.
"""

import os
from errno import EACCES, EDQUOT, EFBIG, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM, EROFS

_CURES = {
    ENOSPC: "make room",
    EDQUOT: "make room",
    EFBIG: "raise the limit of file sizes (ulimit -f)",
    EMFILE: "raise the limit of open files (ulimit -n)",
    ENFILE: "raise the limit of open files (fs.file-max)",
    ENOMEM: "free memory, or raise the memory limit",
}


def cure(error: OSError) -> str:
    """Return the remedy for an error of the kernel, as text to follow a colon."""
    if error.errno in (EACCES, EPERM):
        return "run this as root" if os.geteuid() != 0 else "root is denied as well: see dmesg for what forbids it"
    if error.errno == EROFS:
        from binfmtd.files.distribution import in_image  # this module is loaded by every command, so it stays small

        path = os.fsdecode(error.filename or "")
        place = next((top for top in ("/run", "/tmp") if path.startswith(f"{top}/")), "")  # noqa: S108  a name
        return f"start the container with --tmpfs {place}" if place and in_image() else "make it writable"
    return _CURES.get(error.errno or 0, "check its path and its file system")
