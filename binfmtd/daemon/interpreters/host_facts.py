"""Facts about this host, found out once and kept until they may have changed."""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from binfmtd.errors import DAMAGE, StateError
from binfmtd.files.atomic import read_state, write_state
from binfmtd.files.cure import cure
from binfmtd.files.trust import Trust
from binfmtd.host import facts as host
from binfmtd.host.interpreters import file_identity, look_at, program_heads, read_head
from binfmtd.model.config import Config
from binfmtd.model.desired import Facts, InterpreterFacts
from binfmtd.model.entry import ObservedState
from binfmtd.model.probe_result import Probed, TriedInterpreter

NATIVE_FILE = "native.json"


class Interpreters(Protocol):
    """The facts about the interpreters' files."""

    def facts(self, paths: Collection[str]) -> Mapping[str, InterpreterFacts]:
        """Return path -> facts, at least of these paths; a path that has not answered has only a ``problem``."""

    def unchanged(self, path: str) -> bool:
        """Return True if the file at ``path`` is still the one that the facts are about."""

    def changed(self, paths: Iterable[str]) -> None:
        """Take note that the files at these paths may have changed."""

    def same(self, path: str) -> bool:
        """Return True if the file at ``path``, looked at now, is the one that the facts are about.

        For a caller that does not read events at the moment.
        """

    def can_run(self, path: str) -> bool:
        """Return True if a foreign entry's interpreter exists, or if that is not known yet."""

    def read_head(self, path: str) -> bytes:
        """Return the first 256 bytes of an interpreter, as the kernel reads them."""


class InterpretersNow:
    """Facts that are read from the files at each question: for commands, which may block."""

    def __init__(self) -> None:
        self._trust = Trust.of_this_process()
        self._known: dict[str, InterpreterFacts] = {}

    def facts(self, paths: Collection[str]) -> Mapping[str, InterpreterFacts]:
        """Look at the paths that are new or have changed, and return all facts so far."""
        self._known |= look_at([path for path in paths if not self.unchanged(path)], self._trust)
        return self._known

    def unchanged(self, path: str) -> bool:
        """Return True if the path is known, and its file is the same now."""
        return path in self._known and file_identity(path) == self._known[path].file_identity

    same = unchanged

    def changed(self, paths: Iterable[str]) -> None:
        """Do nothing: each question reads the file."""

    def can_run(self, path: str) -> bool:
        """Return True if an executable file is at the path now."""
        return file_identity(path) is not None

    def read_head(self, path: str) -> bytes:
        """Read the first 256 bytes of the file; none if it cannot be read."""
        return read_head(path)


class HostFacts:
    """The facts that a config needs.

    Programs have to be run to find out which architectures run natively.  native.json in ``state_dir`` keeps the result
    until the next boot.
    """

    def __init__(self, state_dir: str | None, *, writes: bool = True) -> None:
        """``writes``: True if native.json may be written."""
        self.interpreters: Interpreters = InterpretersNow()
        self._state_dir = state_dir
        self._path = os.path.join(state_dir or "", NATIVE_FILE)
        self._writes = writes
        self._failing: dict[str, TriedInterpreter] = {}  # by path
        self._native: frozenset[str] | None = None
        self._boot_id = host.boot_id()
        self.header = host.native_header()
        self.heads = program_heads(self.header)
        self._kernel = host.kernel_version()
        self._judges_paths = host.judges_paths()

    def use(self, interpreters: Interpreters) -> None:
        """Take the facts about interpreters from here."""
        self.interpreters = interpreters

    def use_probed(self, probed: Probed | None) -> bool:
        """Take in the interpreters that a probe saw fail; return True if they are others than before."""
        before, tried = self._failing, () if probed is None else probed.interpreters
        self._failing = {interpreter.path: interpreter for interpreter in tried if interpreter.reason}
        return self._failing != before

    def _interpreters(self, config: Config) -> Mapping[str, InterpreterFacts]:
        """Return the facts about the interpreters; one that has failed counts as failing until its file changes."""
        known = self.interpreters.facts(paths_of(config))
        failing = {}
        for path, tried in self._failing.items():
            there = known.get(path, InterpreterFacts())
            if there.file_identity is not None and there.file_identity.text == tried.file:
                failing[path] = there._replace(fails=tried.reason)
        return {**known, **failing} if failing else known

    def gather(self, config: Config, observed: ObservedState | None) -> Facts:
        """Return the facts that this config needs; ``observed`` is None if the entries are not known."""
        return Facts(
            self._interpreters(config),
            self.native(observed) if needs_native(config) else frozenset(),
            self.header,
            self.heads,
            self._kernel,
            self._judges_paths,
        )

    def native(self, observed: ObservedState | None) -> frozenset[str]:
        """Return the architectures that run without a handler: as found out in this boot, else by trying."""
        if self._native is None:
            self._native = self._load()
        if self._native is None:
            from binfmtd.host.native import find_native

            self._native = find_native(observed)
            with suppress(OSError):  # the next start tries again
                self._save(self._native)
        return self._native

    def record(self, observed: ObservedState | None) -> None:
        """Store in native.json what ``native`` returns, for this boot.  Raises StateError."""
        if not self._boot_id:
            raise StateError(f"{NATIVE_FILE} would have no date: /proc/sys/kernel/random/boot_id cannot be read")
        native = self.native(observed)
        try:
            if self._load() != native:
                self._save(native)
        except OSError as error:
            raise StateError(f"{self._path}: {error.strerror}: {cure(error)}") from None

    def _load(self) -> frozenset[str] | None:
        if self._state_dir is None or not self._boot_id:
            return None
        try:
            content = json.loads(read_state(self._path))
            if content["boot_id"] != self._boot_id:
                return None
            return frozenset(str(name) for name in content["native"])
        except (OSError, *DAMAGE):
            return None  # it can be found out again

    def _save(self, native: Iterable[str]) -> None:
        if self._state_dir is None or not self._boot_id or not self._writes:
            return
        text = json.dumps({"boot_id": self._boot_id, "native": sorted(native)})
        write_state(self._path, text.encode())


def paths_of(config: Config) -> list[str]:
    """Return the paths of all interpreters that this config may use."""
    return list(dict.fromkeys(path for declared in config.specs for path in declared.interpreters))


def needs_native(config: Config) -> bool:
    """Return True if this config depends on which architectures run natively."""
    return any(declared.from_all or declared.unless_native for declared in config.specs)
