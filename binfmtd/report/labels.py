"""Labels for node-feature-discovery: one for each architecture whose programs run, also in a container of their own.

Source: its customization guide, "Local feature source", and source/local/local.go.  node-feature-discovery reads a file
in features.d with one ``NAMESPACE/NAME=VALUE`` a line, at most 64 KiB.  It does not read files with a leading dot, so
one may be written there and renamed.  Lines after ``# +expiry-time=TIME`` count until then.  It never denies the
namespace feature.node.kubernetes.io.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

from binfmtd.catalog.architectures import CATALOG
from binfmtd.files.atomic import write_atomically
from binfmtd.model.probe_result import Probed

PREFIX = "feature.node.kubernetes.io/binfmt-"
MISSED = 3  # probes that may be missed before the labels end


def labels(probed: Probed) -> Mapping[str, str]:
    """Return the labels, named after the platforms of images (arm64), or with QEMU's names where there are none."""
    names = [row.name for row in probed.architectures if row.runs_anywhere and row.name in CATALOG]
    return {f"{PREFIX}{CATALOG[name].goarch or name}": "true" for name in names}


class LabelsFile:
    """The file that the config names, with the labels of the last probe."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._written: str | None = None

    def keep(self, path: str | None, probed: Probed | None, interval: float | None) -> None:
        """Write the file if it is missing or the labels have changed; remove it if ``path`` is another one or None.

        ``interval`` is the seconds between two probes, if the daemon probes regularly: the labels expire after MISSED
        of them.  Raises OSError.
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
        """Remove the file, because the config names another one or none; errors are ignored."""
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
