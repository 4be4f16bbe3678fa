"""The version of an emulator, from the output of ``emulator --version``.

This runs the file.  So the caller judges it first: no other user may be able to replace it.
"""

import os
import re
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from errno import EAGAIN, EMFILE, ENFILE, ENOMEM

from binfmtd.host.progress import ends

_SECONDS = 5.0  # without progress, after which an emulator is killed; one that works, after 6 times that (`ends`)
_AT_ONCE = 2  # each maps some 5 MiB: several doctors in one pod of 128 MiB must not exhaust its memory
_MOST_BYTES = 4096
_OURS = (EMFILE, ENFILE, ENOMEM, EAGAIN)  # shortages of this process or host, not faults of an emulator
_VERSION = re.compile(rb"^qemu-\S+ version (\d+(?:\.\d+)*)")


def is_qemu(path: str) -> bool:
    """Return True if this is an emulator of QEMU's, by its own name or by that of the file that it links to."""
    return any(os.path.basename(name).startswith("qemu-") for name in (path, os.path.realpath(path)))


def versions(paths: Iterable[str]) -> dict[str, tuple[int, ...] | str]:
    """Return the version for each path, or the reason why there is none.

    A file that several paths lead to is run once.  Raises OSError if this process lacks descriptors or memory.
    """
    files = {path: os.path.realpath(path) for path in paths}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = dict(zip(names := sorted(set(files.values())), pool.map(_ask, names), strict=True))
    return {path: asked[file] for path, file in files.items()}


def _ask(path: str) -> tuple[int, ...] | str:
    output = b""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        process = subprocess.Popen(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.DEVNULL,
            env={name: text for name, text in os.environ.items() if not name.startswith("QEMU_")},  # QEMU's options
        )
        if not ends(process.pid, _SECONDS):
            process.kill()
            process.wait()
            return f"it made no progress for {_SECONDS:.0f} s, or ran for more than {6 * _SECONDS:.0f} s"
        status = process.wait()
        with suppress(BlockingIOError):  # it has printed nothing
            output = os.read(reading, _MOST_BYTES)
    except OSError as error:
        if error.errno in _OURS:
            raise
        return error.strerror or str(error)
    finally:
        os.close(reading)
        os.close(writing)
    if status < 0:
        return f"it was killed by signal {-status}"
    version = _VERSION.match(output)
    if version is None:
        return f"it exited with status {status} and printed no version"
    return tuple(map(int, version[1].split(b".")))
