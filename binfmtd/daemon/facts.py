"""What this host says about itself, asked once and kept until there is a reason to ask again."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress

from binfmtd.errors import FormatError
from binfmtd.files.atomic import read_regular, write_atomically
from binfmtd.files.trust import Trust
from binfmtd.kernel import host
from binfmtd.kernel.interpreters import fingerprint, look_at, program_heads
from binfmtd.model.config import Config
from binfmtd.model.desired import Facts, InterpreterFacts
from binfmtd.model.entry import ObservedState

NATIVE_FILE = "native.json"


class HostFacts:
    """The facts for one config; ``state_dir`` keeps, for the boot, what had to be found out by running programs."""

    def __init__(self, state_dir: str | None, *, writes: bool = True) -> None:
        """``writes``: whether what was found out may be kept there."""
        self._state_dir = state_dir
        self._writes = writes
        self._trust = Trust.of_this_process()
        self._native: frozenset[str] | None = None
        self._interpreters: dict[str, InterpreterFacts] = {}
        self._boot_id = host.boot_id()
        self.header = host.native_header()
        self.heads = program_heads(self.header)
        self._kernel = host.kernel_version()
        self._judges_paths = host.judges_paths()

    def forget_interpreters(self) -> None:
        """Something happened to an interpreter: look again."""
        self._interpreters = {}

    def forget_exchanged(self) -> None:
        """The same where the file is another than before; who could change it, say, is not asked anew."""
        kept = {path: each for path, each in self._interpreters.items() if fingerprint(path) == each.fingerprint}
        self._interpreters = kept

    def gather(self, config: Config, observed: ObservedState | None) -> Facts:
        """The facts that this config needs; ``observed`` is None where the entries cannot be seen."""
        wanted = paths_of(config)
        missing = [path for path in wanted if path not in self._interpreters]
        self._interpreters |= look_at(missing, self._trust)
        needs_native = any(declared.from_all or declared.unless_native for declared in config.declarations)
        return Facts(
            self._interpreters,
            self.native(observed) if needs_native else frozenset(),
            self.header,
            self.heads,
            self._kernel,
            self._judges_paths,
        )

    def native(self, observed: ObservedState | None) -> frozenset[str]:
        """Which architectures run without a handler: known for this boot, or found out by trying."""
        if self._native is None:
            self._native = self._load()
        if self._native is None:
            from binfmtd.kernel.native import find_native

            self._native = find_native(observed)
            self._save(self._native)
        return self._native

    def _load(self) -> frozenset[str] | None:
        if self._state_dir is None or not self._boot_id:
            return None
        try:
            content = json.loads(read_regular(os.path.join(self._state_dir, NATIVE_FILE)))
            if content["boot_id"] != self._boot_id:
                return None
            return frozenset(str(name) for name in content["native"])
        except (OSError, FormatError, ValueError, KeyError, TypeError, RecursionError):
            return None  # it can be found out again

    def _save(self, native: Iterable[str]) -> None:
        if self._state_dir is None or not self._boot_id or not self._writes:
            return
        text = json.dumps({"boot_id": self._boot_id, "native": sorted(native)})
        with suppress(OSError):  # the next start finds it out again
            write_atomically(os.path.join(self._state_dir, NATIVE_FILE), text.encode())


def paths_of(config: Config) -> list[str]:
    """Every interpreter that the config could mean."""
    return list(dict.fromkeys(path for declared in config.declarations for path in declared.interpreters))
