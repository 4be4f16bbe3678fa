"""Several files as one, and who said what.

* A later file's key wins, an array replaces.  ``[metrics]``, ``[emulators]`` and its tables merge key by key, whichever
  of an architecture's names a file uses.
* ``[handlers.NAME]`` is replaced as a whole, with a warning: half a handler from each of two files would be nobody's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import BaseModel

from binfmtd.catalog.names import find
from binfmtd.config.parse import dotted
from binfmtd.config.schema import (
    ArchitectureTable,
    ConfigFile,
    EmulatorsTable,
    HandlerTable,
    LabelsTable,
    MetricsTable,
)
from binfmtd.errors import ConfigError, FormatError


class Origin(NamedTuple):
    """Where a value was given: a file, and the key as it is written there."""

    file: str
    key: str

    def refuse(self, reason: object) -> ConfigError:
        """The error to raise for this value."""
        return ConfigError(f"{self.file}: {self.key}: {reason}")


@dataclass(slots=True)
class Merged:
    """All files together.  ``origins`` has the keys ``("architectures",)``, ``("emulators", "aarch64", "entry")``."""

    top: ConfigFile = field(default_factory=ConfigFile)
    metrics: MetricsTable = field(default_factory=MetricsTable)
    emulators: EmulatorsTable = field(default_factory=EmulatorsTable)
    architectures: dict[str, ArchitectureTable] = field(default_factory=dict)  # by catalog name
    labels: LabelsTable = field(default_factory=LabelsTable)
    handlers: dict[str, HandlerTable] = field(default_factory=dict)
    origins: dict[tuple[str, ...], Origin] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def merge(files: Sequence[tuple[str, ConfigFile]]) -> Merged:
    """Put the later over the earlier; raises ConfigError for an architecture that does not exist."""
    merged = Merged()
    for file, later in files:
        _add(merged, file, later)
    return merged


def _add(merged: Merged, file: str, later: ConfigFile) -> None:
    merged.top = merged.top.model_copy(update=_given(later))
    merged.emulators = merged.emulators.model_copy(update=_given(later.emulators))
    merged.metrics = merged.metrics.model_copy(update=_given(later.metrics))
    merged.labels = merged.labels.model_copy(update=_given(later.labels))
    for key in _given(later):
        merged.origins[key,] = Origin(file, key)
    for key in _given(later.emulators):
        merged.origins["emulators", key] = Origin(file, dotted("emulators", key))
    for key in _given(later.metrics):
        merged.origins["metrics", key] = Origin(file, dotted("metrics", key))

    here: dict[str, str] = {}
    for written, table in later.emulators.by_architecture.items():
        origin = Origin(file, dotted("emulators", written))
        try:
            name = find(written).name
        except FormatError as error:
            raise origin.refuse(error) from error
        if name in here:
            raise origin.refuse(
                f"the same architecture as {dotted('emulators', here[name])}: make one table of the two"
            )
        here[name] = written
        earlier = merged.architectures.get(name, ArchitectureTable())
        merged.architectures[name] = earlier.model_copy(update=_given(table))
        for key in _given(table):
            merged.origins["emulators", name, key] = Origin(file, dotted("emulators", written, key))

    for name, handler in later.handlers.items():
        origin = Origin(file, dotted("handlers", name))
        if merged.handlers.pop(name, None) is not None:
            earlier_file = merged.origins["handlers", name].file
            merged.warnings.append(f"{file}: {origin.key}: replaces all of the one in {earlier_file}")
        merged.handlers[name] = handler
        merged.origins["handlers", name] = origin


def _given(table: BaseModel) -> Mapping[str, object]:
    """The plain keys that the file has."""
    nested = {"emulators", "handlers", "labels", "metrics"}
    return {key: getattr(table, key) for key in type(table).model_fields if key in table.model_fields_set - nested}
