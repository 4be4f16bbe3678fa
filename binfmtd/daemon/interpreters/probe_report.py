"""The results of ``binfmtd probe``: in the log, in the status, and as labels for node-feature-discovery."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from binfmtd.model.config import Config
from binfmtd.model.probe_result import Probed
from binfmtd.report.labels import LabelsFile
from binfmtd.report.log import get_logger


class ProbeReport:
    """The last result, and the entries whose programs do not run.  Logs changes only."""

    def __init__(self) -> None:
        self._log = get_logger()
        self._probed: Probed | None = None
        self._broken: dict[str, str] = {}  # entry -> why the programs that it takes do not run
        self._problem: str | None = None  # why the last probe failed
        self._labels = LabelsFile()
        self._unwritten: str | None = None

    def found(self, probed: Probed | None) -> None:
        """Take in the result of a probe; None if there is none in this boot, or if it is no longer valid."""
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
        """Log once why a probe failed, or its result could not be read (None: all is well)."""
        if problem is not None and problem != self._problem:
            self._log.error("probe_failed", reason=problem)
        self._problem = problem

    def registered(self, entry: str) -> None:
        """Drop the result for this entry: it was registered again, and the new entry has not been tried."""
        self._broken.pop(entry, None)

    def judge(self, row: dict[str, Any]) -> None:
        """Change a row of the status to ``failed`` if its handler is registered, but its programs do not run."""
        if row["state"] == "registered" and (reason := self._broken.get(row["name"])):
            row["state"], row["reason"] = "failed", f"its programs do not run: {reason}"

    def document(self) -> dict[str, Any]:
        """Return the value of ``probed`` in the status document."""
        probed = self._probed
        return {
            "at": probed and datetime.fromtimestamp(probed.at, UTC).isoformat(timespec="seconds"),
            "error": self._problem,
            "architectures": [] if probed is None else [row._asdict() for row in probed.architectures],
        }

    def labels(self, config: Config) -> Callable[[], str | None]:
        """Return a function for a thread, which writes the labels file of node-feature-discovery.

        The function returns the reason why the file cannot be written, or None.
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
        """Log once why the labels file cannot be written (None: it can)."""
        if problem is not None and problem != self._unwritten:
            self._log.error("labels_unwritten", file=path, reason=problem)
        self._unwritten = problem
