"""What this host says about itself, asked once and kept until there is a reason to ask again."""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from binfmtd.errors import FormatError
from binfmtd.files.atomic import read_state, write_state
from binfmtd.files.trust import Trust
from binfmtd.kernel import host
from binfmtd.kernel.interpreters import fingerprint, head, look_at, program_heads
from binfmtd.model.config import Config
from binfmtd.model.desired import Facts, InterpreterFacts
from binfmtd.model.entry import ObservedState

NATIVE_FILE = "native.json"


class Interpreters(Protocol):
    """What is known of the interpreters' files."""

    def facts(self, paths: Collection[str]) -> Mapping[str, InterpreterFacts]:
        """The facts about these paths; one that has not answered is left out."""

    def unchanged(self, path: str) -> bool:
        """Tell if the file at ``path`` is still the one that the facts are about."""

    def changed(self, paths: Iterable[str]) -> None:
        """Take note that something happened to these paths."""

    def same(self, path: str) -> bool:
        """Tell the same by looking at the file: for a caller that does not read the events at the moment."""

    def can_run(self, path: str) -> bool:
        """Tell if a foreign entry's interpreter is there; true as long as that is not known."""

    def head(self, path: str) -> bytes:
        """The first bytes of an interpreter, as the kernel reads them."""


class InterpretersNow:
    """Looks at the files when it is asked: for commands, which may wait."""

    def __init__(self) -> None:
        self._trust = Trust.of_this_process()
        self._known: dict[str, InterpreterFacts] = {}

    def facts(self, paths: Collection[str]) -> Mapping[str, InterpreterFacts]:
        """Look at what is not known yet, or has changed."""
        self._known |= look_at([path for path in paths if not self.unchanged(path)], self._trust)
        return self._known

    def unchanged(self, path: str) -> bool:
        """Compare with the file that is there now."""
        return path in self._known and fingerprint(path) == self._known[path].fingerprint

    same = unchanged

    def changed(self, paths: Iterable[str]) -> None:
        """Forget nothing: each question looks anew."""

    def can_run(self, path: str) -> bool:
        """Look at the file that is there now."""
        return fingerprint(path) is not None

    def head(self, path: str) -> bytes:
        """Read it."""
        return head(path)


class HostFacts:
    """The facts for one config; ``state_dir`` keeps, for the boot, what had to be found out by running programs."""

    def __init__(self, state_dir: str | None, *, writes: bool = True, interpreters: Interpreters | None = None) -> None:
        """``writes``: whether what was found out may be kept there."""
        self.interpreters = interpreters or InterpretersNow()
        self._state_dir = state_dir
        self._writes = writes
        self._native: frozenset[str] | None = None
        self._boot_id = host.boot_id()
        self.header = host.native_header()
        self.heads = program_heads(self.header)
        self._kernel = host.kernel_version()
        self._judges_paths = host.judges_paths()

    def gather(self, config: Config, observed: ObservedState | None) -> Facts:
        """The facts that this config needs; ``observed`` is None where the entries cannot be seen."""
        return Facts(
            self.interpreters.facts(paths_of(config)),
            self.native(observed) if needs_native(config) else frozenset(),
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
            content = json.loads(read_state(os.path.join(self._state_dir, NATIVE_FILE)))
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
            write_state(os.path.join(self._state_dir, NATIVE_FILE), text.encode())


def paths_of(config: Config) -> list[str]:
    """Every interpreter that the config could mean."""
    return list(dict.fromkeys(path for declared in config.declarations for path in declared.interpreters))


def needs_native(config: Config) -> bool:
    """Tell if it matters for this config what runs natively."""
    return any(declared.from_all or declared.unless_native for declared in config.declarations)
