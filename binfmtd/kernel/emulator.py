"""Which version an emulator is: asked of itself, by ``--version``.

Who asks runs the file, so nobody else may be able to exchange it: the caller has judged it.
"""

import os
import re
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from errno import EAGAIN, EMFILE, ENFILE, ENOMEM

from binfmtd.kernel.progress import ends

_SECONDS = 5.0  # in which one does nothing
_AT_ONCE = 2  # each maps some 5 MiB, which several doctors in one pod of 128 MiB must not exhaust
_MOST_BYTES = 4096
_OURS = (EMFILE, ENFILE, ENOMEM, EAGAIN)  # what we lack, which says nothing of an emulator
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
    said = b""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        process = subprocess.Popen(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.DEVNULL,
            env={name: text for name, text in os.environ.items() if not name.startswith("QEMU_")},  # its own options
        )
        if not ends(process.pid, _SECONDS):
            process.kill()
            process.wait()
            return f"it did not answer within {_SECONDS:.0f} s"
        status = process.wait()
        with suppress(BlockingIOError):  # it has said nothing
            said = os.read(reading, _MOST_BYTES)
    except OSError as error:
        if error.errno in _OURS:
            raise
        return error.strerror or str(error)
    finally:
        os.close(reading)
        os.close(writing)
    if status < 0:
        return f"it was killed by signal {-status}"
    found = _VERSION.match(said)
    if found is None:
        return f"it ended with status {status} and told no version"
    return tuple(map(int, found[1].split(b".")))
