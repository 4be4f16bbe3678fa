"""What others are told, at one moment: made by the loop, read by whoever serves it, changed by nobody.

Everything is rendered at most once, when somebody asks for it first.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from binfmtd.report.counts import Counts
from binfmtd.report.status import unready


class _Told(NamedTuple):
    document: Mapping[str, Any]
    counts: Counts
    started: bool  # the first pass has been made, with proper names


class Snapshot(_Told):
    """The document of the status file, and a copy of the counts."""

    @cached_property
    def unready(self) -> list[str]:
        """Why builds should not be sent here; empty if they may."""
        if not self.started:
            return [self.document["problem"] or "the first pass has not ended"]
        return unready(self.document)

    @cached_property
    def json(self) -> bytes:
        """The status document."""
        return json.dumps(self.document, indent=1).encode("ascii") + b"\n"

    @cached_property
    def metrics(self) -> bytes:
        """In Prometheus' text format.  Raises ImportError where prometheus_client is not installed."""
        from binfmtd.report.metrics import render_metrics

        return render_metrics(self.document, self.counts, ready=not self.unready)

    @cached_property
    def page(self) -> bytes:
        """The status for a person to look at, in HTML."""
        from binfmtd.report.page import render_page

        return render_page(self.document, self.unready)
