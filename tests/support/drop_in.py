"""``binfmt`` as the images run it: each call a process in a private instance, with emulators of its own."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from binfmtd.catalog.architectures import CATALOG
from binfmtd.model.handler import Flags
from support.cli import Result, run
from support.instance import Instance
from support.programs import foreign_program, install

BINFMT = (sys.executable, "-c", "from binfmtd.cli.compat.main import entry; entry()")


class DropIn:
    """``binfmt`` with a directory of emulators (``QEMU_BINARY_PATH``, ``QEMU_BIN_DIR``) and a state directory."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        self.instance = instance
        self.state_directory = directory / "state"
        self.emulators = directory / "bin"
        self.emulators.mkdir()
        self._programs = directory / "programs"
        self._programs.mkdir()

    def add(self, *names: str, suffix: str = "") -> None:
        """Copy real emulators into the directory."""
        for name in names:
            self.put(name, Path(f"/usr/bin/qemu-{name}").read_bytes(), suffix)

    def put(self, name: str, content: bytes, suffix: str = "") -> None:
        """Put any content there as an emulator, in a new file with its own inode."""
        install(self.emulators / f"qemu-{name}{suffix}", content)

    def command(self, *words: str, variables: Mapping[str, str] | None = None) -> list[str]:
        """Return the command line that enters the instance and runs ``binfmt`` there."""
        return self.instance.entering(self.command_inside(*words, variables=variables))

    def command_inside(self, *words: str, variables: Mapping[str, str] | None = None) -> list[str]:
        """Return the command line that runs ``binfmt``, for a process that is in the instance already."""
        given: dict[str, str] = {
            "BINFMTD_STATE_DIR": str(self.state_directory),
            "QEMU_BINARY_PATH": str(self.emulators),
            "QEMU_BIN_DIR": str(self.emulators),
            **(variables or {}),
        }
        return ["env", *(f"{key}={value}" for key, value in given.items()), *BINFMT, *words]

    def __call__(self, line: str, **variables: str) -> Result:
        """Run it to its end; the words of ``line`` are its arguments."""
        return run(self.command(*line.split(), variables=variables))

    def register(
        self, name: str, interpreter: str | None = None, flags: Flags = Flags.O | Flags.F, entry: str = ""
    ) -> None:
        """Register an architecture's entry as another container would; by default as `--install` does."""
        path = interpreter or str(self.emulators / f"qemu-{name}")
        self.instance.add(entry or f"qemu-{name}", CATALOG[name].match, path, flags)

    def program(self, name: str) -> Path:
        """Return an architecture's tiny program as a file."""
        return foreign_program(self._programs / name, CATALOG[name])

    def runs(self, name: str) -> bool:
        """Return True if the architecture's programs run in the instance, in a chroot without an emulator."""
        root = self._programs / f"root-{name}"
        root.mkdir(exist_ok=True)
        shutil.copy(self.program(name), root / "program")
        return self.instance.run(["chroot", str(root), "/program"]).returncode == 42
