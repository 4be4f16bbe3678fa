"""Which version an emulator is: asked of itself, by ``--version``.

Who asks runs the file, so nobody else may be able to exchange it: the caller has judged it.
"""

import os
import re
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

_SECONDS = 5.0
_AT_ONCE = 8
_VERSION = re.compile(rb"^qemu-\S+ version (\d+(?:\.\d+)*)")


def is_qemu(path: str) -> bool:
    """Whether this is one of QEMU's, by its name, or by that of the file to which a link leads."""
    return any(os.path.basename(name).startswith("qemu-") for name in (path, os.path.realpath(path)))


def versions(paths: Iterable[str]) -> dict[str, tuple[int, ...] | str]:
    """Of each path the version, or why there is none; a file that several lead to is asked once."""
    files = {path: os.path.realpath(path) for path in paths}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = dict(zip(names := sorted(set(files.values())), pool.map(_ask, names), strict=True))
    return {path: asked[file] for path, file in files.items()}


def _ask(path: str) -> tuple[int, ...] | str:
    try:
        done = subprocess.run(
            [path, "--version"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: text for name, text in os.environ.items() if not name.startswith("QEMU_")},  # its own options
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"it did not answer within {_SECONDS:.0f} s"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode < 0:
        return f"it was killed by signal {-done.returncode}"
    found = _VERSION.match(done.stdout)
    if found is None:
        return f"it ended with status {done.returncode} and told no version"
    return tuple(map(int, found[1].split(b".")))
