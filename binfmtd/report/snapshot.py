"""The published data of one moment: made by the loop, read by the threads that serve it, and never changed.

Each form is rendered at the first request for it, and kept.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from binfmtd.report.counts import Counts
from binfmtd.report.status import unready
from binfmtd.report.status_json import render_json


class _Published(NamedTuple):
    document: Mapping[str, Any]
    counts: Counts
    started: bool  # the first pass that writes proper names has ended


class Snapshot(_Published):
    """The document of the status file, and a copy of the counts."""

    @cached_property
    def unready(self) -> list[str]:
        """The reasons why builds should not be sent here; empty if there is none."""
        if not self.started:
            return [self.document["problem"] or "the daemon is starting: its first pass has not ended"]
        return unready(self.document)

    @cached_property
    def json(self) -> bytes:
        """The status file's content, with a newline at its end."""
        return render_json(self.document) + b"\n"

    @cached_property
    def metrics(self) -> bytes:
        """The metrics in Prometheus' text format.  Raises ImportError if prometheus_client is not installed."""
        from binfmtd.report.metrics import render_metrics

        return render_metrics(self.document, self.counts, ready=not self.unready)

    def page(self, now: int) -> bytes:
        """Return the status for people, in HTML, with ages as of ``now`` (whole seconds since the epoch)."""
        at, page = self._last_page
        if at != now:
            from binfmtd.report.page import render_page

            page = render_page(self.document, self.unready, now)
            self._last_page = now, page
        return page

    @cached_property
    def _last_page(self) -> tuple[int, bytes]:
        """The last page that was rendered, and for when: many clients cost one page a second."""
        return -1, b""
