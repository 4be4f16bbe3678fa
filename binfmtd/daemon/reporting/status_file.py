"""The status file: the daemon's state, for other programs to read, made of what was observed last.

It is replaced when its content changes.  The number of passes and the last pass alone are no change.
"""

import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from errno import EDQUOT, ENOSPC
from typing import Any

from binfmtd.daemon.assessment import Assessment
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.interpreters.probe_report import ProbeReport
from binfmtd.daemon.state_files.pause_file import since_boot
from binfmtd.kernel.mount import Mounted
from binfmtd.model.stand_in import PREFIX
from binfmtd.report.counts import Counts
from binfmtd.report.seal import OFF, SealStatus
from binfmtd.report.status import Troubles, foreign_part, handler_states, lacking, whole_state
from binfmtd.report.status_json import remove_status, status_written, write_status

_FULL = (ENOSPC, EDQUOT)  # the old status would count as the present one for a long time


class StatusFile:
    """The status file, and those parts of its document that outlive a pass."""

    def __init__(self, state_dir: str, config_path: str, counts: Counts, probe: ProbeReport) -> None:
        self._state_dir = state_dir
        self._config_path = config_path
        self._counts = counts
        self._probe = probe
        self.generation = 1
        self.config_error: str | None = None
        self._loaded_at = now()
        self._reload_began: float | None = None
        self.assessment: Assessment | None = None
        self.last_pass: dict[str, Any] | None = None
        self.error: OSError | None = None  # why the file could not be written
        self._file_problems: tuple[str | None, ...] = (None, None)  # that the document was made with
        self._wanted: dict[str, Any] | None = None
        self._written: dict[str, Any] | None = None  # the content of the file, without ``passes`` and ``last_pass``

    def config_replaced(self, reload_began: float) -> None:
        """Record that another config is in force; its reload began ``reload_began`` seconds after the boot."""
        self.generation += 1
        self._loaded_at = now()
        self.config_error = None
        self._reload_began = reload_began

    def config_rejected(self, error: str, reload_began: float) -> None:
        """Record that a new config is invalid; the one before stays in force."""
        self.config_error = error
        self._reload_began = reload_began

    def put(self, document: dict[str, Any]) -> None:
        """Set the content of the file; ``sync`` writes it."""
        self._wanted = document

    def sync(self) -> bool:
        """Replace the file unless it has this content; return False if that failed: ``error`` then has the reason."""
        document = self._wanted
        if document is None:
            return True
        lasting = {key: value for key, value in document.items() if key not in ("passes", "last_pass")}
        if lasting == self._written and status_written(self._state_dir):
            return True
        try:
            write_status(self._state_dir, document)
        except OSError as error:
            self.error = error
            if error.errno in _FULL:
                remove_status(self._state_dir)
            return False
        self._written, self.error = lasting, None
        return True

    def is_behind(self, reconciler: Reconciler) -> bool:
        """Return True if a problem of ledger.json or foreign.json has begun or ended since the document was made."""
        return _file_problems(reconciler) != self._file_problems

    def document(
        self,
        reconciler: Reconciler,
        mounted: Mounted | None,
        contended: Collection[str],
        bridged: Mapping[str, tuple[bool, str | None]],
        troubles: Collection[str | None],
        history: list[dict[str, Any]],
        seal: SealStatus = OFF,
    ) -> dict[str, Any]:
        """Return the status document.

        ``bridged``: each name with an open drift -> True if a stand-in serves, and why it drifted, if that is known.
        ``troubles``: why the daemon cannot do its work or a part of it, the worst first.
        """
        failed = {name: str(error) for name, error in reconciler.failed.items()}
        unrestored = [
            f"{name}: this foreign entry cannot be restored: {failed[name]}"
            for name, remembered in reconciler.foreign_entries.entries.items()
            if remembered.lost and name in failed
        ]
        self._file_problems = _file_problems(reconciler)
        problems = (*troubles, *self._file_problems, *unrestored)
        problem = next(filter(None, problems), None)
        what = Troubles(failed, contended, self._counts.repairs_by_entry(), problem, reconciler.pauses)
        assessment = (
            self.assessment if mounted is not None else None
        )  # what was observed before an unmount exists no more
        rows = (
            [] if assessment is None else handler_states(assessment.desired, assessment.observed, assessment.plan, what)
        )
        for row in rows:
            if row["name"] in bridged and row["state"] == "registered":
                served, why = bridged[row["name"]]
                row["state"] = "stand_in" if served else "waiting"
                row["reason"] = (
                    f"{why or 'it is missing or differs from the config'}; it is registered again as soon as no other "
                    "process changes it"
                )
            self._probe.judge(row)
        lacks = None if assessment is None else lacking(assessment.desired, assessment.observed)
        return {
            "state": "degraded"
            if assessment is None
            else whole_state(rows, assessment.plan, what, drifting=bool(bridged), lacks=lacks is not None),
            "problem": problem,
            "lacking": lacks,
            "mount": mounted
            and {
                "directory": mounted.directory,
                "read_only": mounted.read_only,
                "host_unmounted": mounted.host_unmounted,
            },
            "seal": seal._asdict(),
            "config": {
                "path": self._config_path,
                "files": list(reconciler.config.sources),
                "architectures": None if (named := reconciler.config.architectures) is None else list(named),
                "generation": self.generation,
                "loaded_at": self._loaded_at,
                "error": self.config_error,
                "reload_began": self._reload_began,
            },
            "handlers": rows,
            "contended": sorted({name.removeprefix(PREFIX) for name in contended}),
            "paused": [{"name": name, "until": when(end)} for name, end in sorted(reconciler.pauses.until.items())],
            "probed": self._probe.document(),
            **(
                foreign_part((), (0, 0))
                if assessment is None
                else foreign_part(assessment.foreign(), assessment.foreign_count())
            ),
            "passes": self._counts.passes.total(),
            "repairs": self._counts.repairs.total(),
            "log_lines_dropped": self._counts.log_lines_dropped,
            "last_pass": self.last_pass,
            "history": history,
        }


def _file_problems(reconciler: Reconciler) -> tuple[str | None, ...]:
    return reconciler.ledger.problem, reconciler.foreign_entries.problem


def when(end: float) -> str | None:
    """Return a time in seconds since the boot as UTC in ISO 8601; None for infinity, or if no calendar has it."""
    try:
        at = round(time.time() + end - since_boot())
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):  # infinity, or a clock that is set too far
        return None


def now() -> str:
    """Return the present UTC time in ISO 8601, to the millisecond."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
