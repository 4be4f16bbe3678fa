"""The merge of several files into one, with the origin of each value.

* A later file's key replaces an earlier one's, an array as a whole.  ``[metrics]``, ``[labels]``, ``[emulators]`` and
  its tables merge key by key; files may use different names of one architecture.
* Of the keys that choose an architecture's emulator a later file's replaces all of an earlier one's.
* ``[handlers.NAME]`` is replaced as a whole, with a warning: half a handler from each of two files would be one that
  neither declares.
"""

from __future__ import annotations  # importing the types of the tables would import pydantic

from typing import TYPE_CHECKING, Literal, NamedTuple

from binfmtd.catalog.names import find
from binfmtd.config.tables import dotted
from binfmtd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binfmtd.config.schema import (
        ArchitectureTable,
        ConfigFile,
        EmulatorsTable,
        HandlerTable,
        LabelsTable,
        MetricsTable,
    )


WAYS_TO_CHOOSE: tuple[Literal["interpreter", "interpreters", "version"], ...] = (
    "interpreter",
    "interpreters",
    "version",
)
"""The keys of ``[emulators.NAME]`` that choose its emulator: a table may have one of them."""


class Origin(NamedTuple):
    """The place of a value: a file, and the key as it is written there."""

    file: str
    key: str

    def refuse(self, reason: object) -> ConfigError:
        """Return the error to raise for this value."""
        return ConfigError(f"{self.file}: {self.key}: {reason}")


class Merged:
    """All files together.  ``origins`` has keys like ``("architectures",)``, ``("emulators", "aarch64", "entry")``."""

    def __init__(self) -> None:
        self.top: ConfigFile = {}
        self.metrics: MetricsTable = {}
        self.emulators: EmulatorsTable = {}
        self.architectures: dict[str, ArchitectureTable] = {}  # by catalog name
        self.labels: LabelsTable = {}
        self.handlers: dict[str, HandlerTable] = {}
        self.origins: dict[tuple[str, ...], Origin] = {}
        self.warnings: list[str] = []


def merge(files: Sequence[tuple[str, ConfigFile]]) -> Merged:
    """Put the later files over the earlier ones.

    Raises ConfigError for an architecture that has two tables in one file.
    """
    merged = Merged()
    for file, later in files:
        _add(merged, file, later)
    return merged


def _add(merged: Merged, file: str, later: ConfigFile) -> None:
    metrics, emulators = later.get("metrics", {}), later.get("emulators", {})
    merged.top.update(later)
    merged.emulators.update(emulators)
    merged.metrics.update(metrics)
    merged.labels.update(later.get("labels", {}))
    for key in later:
        merged.origins[key,] = Origin(file, key)
    for key in emulators:
        merged.origins["emulators", key] = Origin(file, dotted("emulators", key))
    for key in metrics:
        merged.origins["metrics", key] = Origin(file, dotted("metrics", key))

    here: dict[str, str] = {}
    for written, table in emulators.get("by_architecture", {}).items():
        origin = Origin(file, dotted("emulators", written))
        name = find(written).name  # the schema has checked it
        if name in here:
            raise origin.refuse(
                f"is the same architecture as {dotted('emulators', here[name])}: put both tables into one"
            )
        here[name] = written
        earlier = merged.architectures.setdefault(name, {})
        if not table.keys().isdisjoint(WAYS_TO_CHOOSE):
            for way in WAYS_TO_CHOOSE:
                earlier.pop(way, None)
        earlier.update(table)
        for key in table:
            merged.origins["emulators", name, key] = Origin(file, dotted("emulators", written, key))

    for name, handler in later.get("handlers", {}).items():
        origin = Origin(file, dotted("handlers", name))
        if merged.handlers.pop(name, None) is not None:
            earlier_file = merged.origins["handlers", name].file
            merged.warnings.append(f"{file}: {origin.key}: replaces the whole table of this name in {earlier_file}")
        merged.handlers[name] = handler
        merged.origins["handlers", name] = origin
