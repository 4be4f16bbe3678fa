"""Everything that other programs can read: status file, systemd's status line, labels, textfile and HTTP.

The loop hands over one document at a time, and does not wait.  Each sink that may block has its own thread, so that a
disk that hangs stops its own sink alone.  While a sink hangs, a newer document replaces the one that waits.
"""

from collections.abc import Callable, Mapping
from typing import Any

from binfmtd.daemon.background import Background
from binfmtd.daemon.interpreters.probe_report import ProbeReport
from binfmtd.daemon.metrics.exporter import KEY as METRICS
from binfmtd.daemon.metrics.exporter import Exporter
from binfmtd.daemon.sd_notify import Notifier
from binfmtd.daemon.state_files.state_writer import KEY as STATE
from binfmtd.daemon.state_files.state_writer import StateWriter
from binfmtd.model.config import Config
from binfmtd.report.sentence import sentence

_LABELS = "labels"
KEYS = (STATE, METRICS, _LABELS)  # of the work in the background that publishes
_THEN_SECONDS = 1.0  # seconds that READY=1 waits for the status file
_LAST_SECONDS = 1.0  # seconds that the daemon's end waits for disks


class Publisher:
    """The sinks, each kept in step with the newest document."""

    def __init__(
        self,
        background: Background,
        notifier: Notifier,
        state: StateWriter,
        exporter: Exporter,
        probe: ProbeReport,
    ) -> None:
        self._background = background
        self._notifier = notifier
        self._state = state
        self._exporter = exporter
        self._probe = probe
        self._labelled: object = None  # the labels file of the last document

    def publish(
        self, document: Mapping[str, Any], config: Config, *, started: bool, then: Callable[[], None] | None = None
    ) -> None:
        """Publish a document.

        ``started``: the handlers are registered under their proper names.  ``then`` is called in the loop when the
        status file has been written or could not be written, or after one second.
        """
        self._notifier.send_status(sentence(document))
        self._exporter.show(document, config.metrics, started=started)
        self._state.sync(then, _THEN_SECONDS)
        if config.labels is not None or self._labelled is not None:
            self._labelled = config.labels
            path = config.labels
            self._background.run(
                _LABELS, self._probe.labels(config), lambda problem: self._probe.labels_kept(path, problem)
            )

    def close(self) -> None:
        """Write what is left, waiting one second at most, and close textfile and HTTP."""
        self._background.finish([STATE, _LABELS], _LAST_SECONDS)
        self._exporter.close()
