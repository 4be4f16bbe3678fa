"""The settings that an emulator's file carries: ``binfmtd emulators configure`` adds them (formats/elf_settings.py)."""

import os
import stat
from collections.abc import Mapping

from binfmtd.formats.elf_settings import settings_of
from binfmtd.host.emulations import version_text

_HIGHEST = 1 << 62  # the offsets of a damaged file may be larger than pread takes


def settings_in(path: str) -> dict[str, str]:
    """Return the settings of the file at a path, links followed; empty if it has none or cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return {}
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return {}
        return settings_of(lambda offset, size: os.pread(descriptor, size, offset) if offset < _HIGHEST else b"")
    except OSError:
        return {}
    finally:
        os.close(descriptor)


def described(path: str) -> str:
    """Return QEMU's version of the emulator at a path, and its settings, like ``9.2.2 with QEMU_CPU=max``.

    Returns "" if its file has neither.
    """
    version, settings = version_text(path), settings_in(path)
    return f"{version or '-'} with {in_words(settings)}" if settings else version


def in_words(settings: Mapping[str, str]) -> str:
    """Return settings as a shell takes them, like ``QEMU_CPU=max,-avx512f QEMU_UNAME=6.1``; "" for none."""
    import shlex

    return " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
