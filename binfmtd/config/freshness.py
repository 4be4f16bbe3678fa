"""When the config last changed, and what to watch to learn that it did."""

import os
import time

from binfmtd.config.load import DEFAULT_PATH
from binfmtd.files.chain import walk

ANY_NAME = "*"


def age(path: str | None) -> float:
    """Seconds since somebody last changed the config or anything in conf.d; infinite if nothing is there."""
    main, directory = _places(path)
    newest = float("-inf")
    for name in (main, directory, *_inside(directory)):
        try:
            found = os.stat(name)
        except OSError:
            continue
        newest = max(newest, found.st_mtime, found.st_ctime)
    return time.time() - newest


def watched(path: str | None) -> dict[str, set[str]]:
    """Directory -> names to watch: each link on the way to the config, its conf.d, and all that is in there.

    A ConfigMap's update is the switch of the link ``..data``, which is on the way.
    """
    main, directory = _places(path)
    found: dict[str, set[str]] = {}
    for name in (main, directory, *_inside(directory)):
        for parent, child in walk(name).watched:
            found.setdefault(parent, set()).add(child)
    if os.path.isdir(directory):
        found.setdefault(os.path.realpath(directory), set()).add(ANY_NAME)
    return found


def _places(path: str | None) -> tuple[str, str]:
    main = os.path.abspath(path or DEFAULT_PATH)
    return main, os.path.join(os.path.dirname(main), "conf.d")


def _inside(directory: str) -> list[str]:
    try:
        return [os.path.join(directory, name) for name in os.listdir(directory)]
    except OSError:
        return []
