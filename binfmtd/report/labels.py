"""Labels for node-feature-discovery: one for each architecture whose programs run, also in a container of their own.

Source: its customization guide, "Local feature source", and source/local/local.go: a file in features.d with one
``NAMESPACE/NAME=VALUE`` a line, at most 64 KiB; files with a leading dot are not read, so that one may be written there
and renamed; what follows ``# +expiry-time=`` counts until then; feature.node.kubernetes.io is never a denied namespace.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

from binfmtd.catalog.architectures import CATALOG
from binfmtd.files.atomic import write_atomically
from binfmtd.model.probed import Probed

PREFIX = "feature.node.kubernetes.io/binfmt-"
MISSED = 3  # probes that may be missed before the labels end


def labels(probed: Probed) -> Mapping[str, str]:
    """The labels, by the names that images' platforms have (arm64), and QEMU's where there is none."""
    names = [row.name for row in probed.architectures if row.runs_anywhere and row.name in CATALOG]
    return {f"{PREFIX}{CATALOG[name].goarch or name}": "true" for name in names}


class LabelsFile:
    """The file that the config names, kept in step with what was probed."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._written: str | None = None

    def keep(self, path: str | None, probed: Probed | None, interval: float | None) -> None:
        """Write it where it is not as it should be; with an ``interval`` in seconds it ends if nobody probes any more.

        Raises OSError.
        """
        if path != self._path:
            self.remove()
            self._path = path
        if path is None:
            return
        text = _text(probed, interval)
        if text != self._written or not os.path.lexists(path):
            write_atomically(path, text.encode("ascii"))
            self._written = text

    def remove(self) -> None:
        """What was registered is there no more, or is told elsewhere."""
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)
        self._path = self._written = None


def _text(probed: Probed | None, interval: float | None) -> str:
    lines = ["# Written by binfmtd: the architectures whose programs run here, natively or through binfmt_misc."]
    if probed is not None and interval is not None:
        end = datetime.fromtimestamp(probed.at + MISSED * interval, UTC)
        lines.append(f"# +expiry-time={end:%Y-%m-%dT%H:%M:%SZ}")
    if probed is not None:
        lines += [f"{name}={value}" for name, value in labels(probed).items()]
    return "\n".join([*lines, ""])
