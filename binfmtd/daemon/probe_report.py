"""What the daemon tells of what runs: in the log, in the status, and as labels."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from binfmtd.model.config import Config
from binfmtd.model.probed import Probed
from binfmtd.report.labels import LabelsFile
from binfmtd.report.log import get_logger


class ProbeReport:
    """What was found last, and what follows from it.  Nothing is logged when nothing has changed."""

    def __init__(self) -> None:
        self._log = get_logger()
        self._probed: Probed | None = None
        self._broken: dict[str, str] = {}  # entry -> why the programs that it takes do not run
        self._problem: str | None = None  # why nobody knows what runs
        self._labels = LabelsFile()
        self._unwritten: str | None = None

    def found(self, probed: Probed | None) -> None:
        """Somebody has probed; None if nobody did in this boot, or if that is over."""
        rows = () if probed is None else probed.architectures
        before = () if self._probed is None else self._probed.architectures
        self._probed, broken = probed, self._broken
        self._broken = {row.entry: row.reason for row in rows if row.entry and not row.runs}
        for row in rows:
            if row.entry in self._broken and self._broken[row.entry] != broken.get(row.entry):
                self._log.error("programs_fail", architecture=row.name, entry=row.entry, reason=row.reason)
        if [row.name for row in rows if row.runs] != [row.name for row in before if row.runs]:
            self._log.info("probed", runs=[row.name for row in rows if row.runs])

    def failed(self, problem: str | None) -> None:
        """It could not be found out what runs (None: it could)."""
        if problem is not None and problem != self._problem:
            self._log.error("probe_failed", reason=problem)
        self._problem = problem

    def registered(self, entry: str) -> None:
        """What was said of this entry is over: it is another one, and nobody has tried that."""
        self._broken.pop(entry, None)

    def judge(self, row: dict[str, Any]) -> None:
        """Amend the status of a handler that is registered, and whose programs do not run."""
        if row["state"] == "registered" and (reason := self._broken.get(row["name"])):
            row["state"], row["reason"] = "failed", f"its programs do not run: {reason}"

    def document(self) -> dict[str, Any]:
        """For the status."""
        probed = self._probed
        return {
            "at": probed and datetime.fromtimestamp(probed.at, UTC).isoformat(timespec="seconds"),
            "error": self._problem,
            "architectures": [] if probed is None else [row._asdict() for row in probed.architectures],
        }

    def labels(self, config: Config) -> Callable[[], str | None]:
        """Return the work that has the file for node-feature-discovery say the same, for a thread.

        It returns why the file cannot be written, if so.
        """
        path, probed = config.labels, self._probed
        interval = config.policy.probe if isinstance(config.policy.probe, float) else None

        def keep() -> str | None:
            try:
                self._labels.keep(path, probed, interval)
            except OSError as error:
                return error.strerror
            return None

        return keep

    def labels_kept(self, path: str | None, problem: str | None) -> None:
        """Log once that the file cannot be written (None: it can)."""
        if problem is not None and problem != self._unwritten:
            self._log.error("labels_unwritten", file=path, reason=problem)
        self._unwritten = problem
