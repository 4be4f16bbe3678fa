"""Commands for a shell that change one entry, without binfmtd."""

import os
import shlex

from binfmtd.model.entry import Entry


def control(directory: str, entry: Entry, value: str) -> str:
    """Return the command that writes ``value`` to the entry: 1 enables, 0 disables, -1 removes it."""
    if entry.name.isprintable():
        return f"echo {value} >{shlex.quote(os.path.join(directory, entry.name))}"
    # A name that cannot be typed is found by its inode number.
    return f"find {shlex.quote(directory)} -inum {entry.inode} -exec sh -c 'echo {value} >\"$0\"' {{}} \\;"
