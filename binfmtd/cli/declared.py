"""Remedies from the config: the handler that would take a file that no entry takes, and why it is not registered.

The config is read only when there is such a file.
"""

from __future__ import annotations

from functools import cached_property
from shlex import quote
from typing import TYPE_CHECKING

from binfmtd.cli.state import state_dir_or_none
from binfmtd.errors import BinfmtdError, ConfigError, UsageError
from binfmtd.model.match import takes

if TYPE_CHECKING:
    import argparse

    from binfmtd.formats.file_types import Kind
    from binfmtd.model.config import Config
    from binfmtd.model.desired import DesiredState
    from binfmtd.model.entry import ObservedState


class Declared:
    """The config of this command line, and the handlers that it declares for this host."""

    def __init__(self, given: argparse.Namespace, observed: ObservedState | None) -> None:
        self.given = given
        self.observed = observed

    def remedy(self, kind: Kind, head: bytes, path: str) -> tuple[str, str]:
        """Return what would make such a file run: a sentence, and config lines that declare a handler, or ""."""
        if isinstance(self._config, BinfmtdError):
            invalid = f"the config may have a handler for it, but is invalid: {self._config}"
            known = kind.architecture is not None
            return f"{invalid}: correct that first" if known else f"{kind.remedy} ({invalid})", kind.config
        fitting = [spec for spec in self._config.specs if spec.enabled and takes(spec.match, head, path)]
        for declared in sorted(fitting, key=lambda declared: declared.priority, reverse=True):
            from binfmtd.report.status import unavailable_reason

            if unavailable := self._desired.unavailable_by_name.get(declared.name):
                reason = f"{unavailable.cause}: {unavailable_reason(unavailable)}"
                return f"the config has handler {declared.name} for it, but this is {reason}", ""
            if declared.name in self._desired.by_name:
                which = "" if self.given.config is None else f" --config {quote(self.given.config)}"
                register = f"run `binfmtd apply{which}` as root or, if a daemon runs, see `binfmtd status`"
                return f"the config has handler {declared.name} for it, but this is not registered: {register}", ""
        if kind.architecture is None or kind.word != "elf" or not kind.config:
            return kind.remedy, kind.config
        if emulator := self._emulator(kind.architecture):
            name = kind.architecture
            return f"{emulator} exists: run `binfmtd --arch {name}` as root, or declare the handler", kind.config
        from binfmtd.files.distribution import emulators_remedy

        return f"{kind.remedy}: {emulators_remedy(kind.architecture)}", kind.config

    @cached_property
    def _config(self) -> Config | BinfmtdError:
        from binfmtd.cli.context import load_config
        from binfmtd.cli.options import architectures

        try:
            return load_config(self.given, architectures(self.given))
        except (ConfigError, UsageError) as error:  # UsageError: of $BINFMTD_ARCH
            return error

    @cached_property
    def _desired(self) -> DesiredState:
        from binfmtd.daemon.interpreters.host_facts import HostFacts
        from binfmtd.model.desired import DesiredState
        from binfmtd.model.resolve import resolve

        if isinstance(self._config, BinfmtdError):
            return DesiredState()
        facts = HostFacts(state_dir_or_none(self.given), writes=False)
        return resolve(self._config, facts.gather(self._config, self.observed))

    def _emulator(self, architecture: str) -> str | None:
        """Return the path of an existing emulator for an architecture that the config leaves out, or None."""
        from binfmtd.cli.context import load_config
        from binfmtd.host.interpreters import file_identity

        everything = load_config(self.given, architectures=("all",))
        paths = (
            path
            for declared in everything.specs
            if declared.architecture == architecture
            for path in declared.interpreters
        )
        return next((path for path in paths if file_identity(path) is not None), None)
