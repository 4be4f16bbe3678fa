"""Emulators with settings: copies of a version's files that find environment variables set, and a test of each.

A setting that the emulator refuses would stop every program that it should run, like a processor's name that this
architecture does not have.  So each new file executes a tiny program of its architecture once.  If that fails, and
does not fail without the settings, nothing is added.

Example: ``QEMU_CPU=cortex-a57`` in qemu-sh4 fails with "unable to find CPU model".
"""

import os
import subprocess
from collections.abc import Mapping, Sequence

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.errors import FormatError, StoreError, UsageError
from binfmtd.formats.elf_settings import add_settings, check_settings
from binfmtd.host.probe_process import EXIT_STATUS
from binfmtd.host.progress import ends

_SECONDS = 5.0  # without progress, after which an emulator is killed
_MESSAGE_BYTES = 4096


def parse_settings(words: Sequence[str]) -> dict[str, str]:
    """Return the settings of words like ``QEMU_CPU=max``.  Raises UsageError."""
    settings: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r} is no setting: write NAME=VALUE, like QEMU_CPU=max")
        if name in settings:
            raise UsageError(f"the setting {name} is given twice: leave one out")
        settings[name] = value
    try:
        check_settings(settings)
    except FormatError as error:
        raise UsageError(str(error)) from None
    return settings


def write_with_settings(source: str, target: str, settings: Mapping[str, str]) -> None:
    """Write a copy of an emulator that has these settings.  Raises StoreError, which names the source, and OSError."""
    with open(source, "rb") as file:
        content = file.read()
    try:
        content = add_settings(content, settings)
    except FormatError as error:
        raise StoreError(f"{source} cannot carry settings: {error}: leave it out with --arch") from None
    with open(target, "xb") as file:
        file.write(content)


def check_runs(architecture: str, emulator: str, without: str, settings: Mapping[str, str], directory: str) -> None:
    """Raise StoreError if an emulator does not run a tiny program, but runs it without its settings; and OSError.

    The program and messages are written to ``directory``.
    """
    if architecture not in CATALOG:
        return
    program = os.path.join(directory, f"program-{architecture}")
    with open(program, "wb") as file:
        file.write(tiny_program(CATALOG[architecture]))
    os.chmod(program, 0o700)
    reason = _why_not(emulator, program, settings)
    if reason is not None and _why_not(without, program, settings) is None:
        raise StoreError(
            f"qemu-{architecture} runs no program with these settings: {reason}: correct them, or name the "
            "architectures that they are for with --arch"
        )


def _why_not(emulator: str, program: str, settings: Mapping[str, str]) -> str | None:
    """Return why an emulator does not run a program that exits with 42, or None.  Raises OSError."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith("QEMU_") and name not in settings}
    with open(f"{program}-messages", "w+b") as messages:
        process = subprocess.Popen(
            [emulator, program], stdin=subprocess.DEVNULL, stdout=messages, stderr=messages, env=ours
        )
        if not ends(process.pid, _SECONDS):
            process.kill()
            process.wait()
            return "it does not end"
        if (status := process.wait()) == EXIT_STATUS:
            return None
        messages.seek(0)
        lines = messages.read(_MESSAGE_BYTES).decode("utf-8", "replace").split("\n")
    why = f"it was killed by signal {-status}" if status < 0 else f"it exited with status {status}"
    return next((line for line in lines if line.strip()), why)
