"""Metrics and status for other programs: by a textfile, by HTTP, or not at all.

The loop hands over a snapshot with each status, and goes on.  Threads do everything else.  They start, and import what
they need, only if the config or a socket from systemd asks for them.  Their errors do not end the daemon: each is
logged once, and what failed is tried again with the next reload or resync.
"""

import importlib
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from binfmtd.daemon.background import Background
from binfmtd.daemon.listen_fds import passed_socket
from binfmtd.daemon.poller import Poller
from binfmtd.daemon.preload import cannot_load
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.files.package import check_version
from binfmtd.model.config import Metrics
from binfmtd.report.snapshot import Snapshot

if TYPE_CHECKING:
    from binfmtd.daemon.metrics.http_server import HttpServer
    from binfmtd.daemon.metrics.textfile import Textfile

KEY = "metrics"
_MODULES = (
    "binfmtd.daemon.metrics.http_answer",
    "binfmtd.daemon.metrics.http_server",
    "binfmtd.daemon.metrics.textfile",
    "binfmtd.report.page",
    "binfmtd.report.metrics",
)
_LAST_SECONDS = 0.5  # seconds that the daemon's end waits for an import


class Exporter:
    """The textfile and the HTTP server, opened and closed as the config asks."""

    def __init__(self, report: Reporter, wait: Poller, background: Background) -> None:
        """``wait`` contains the time by which a loop that is not stuck waits again, for the health check."""
        self._report = report
        self._background = background
        self._wait = wait
        self._passed = passed_socket()
        self._snapshot: Snapshot | None = None
        self._open = Metrics()  # what the config asked for last
        self._used = Metrics()  # what the thread opened last, or tried to
        self._textfile: Textfile | None = None
        self._server: HttpServer | None = None
        self._retry = False

    def retry(self) -> None:
        """Have the next ``show`` try again to open what could not be opened."""
        self._retry = True

    def show(self, document: Mapping[str, Any], wanted: Metrics, *, started: bool) -> None:
        """Show this status document from now on; ``wanted`` is the config's `[metrics]`, ``started`` as in Snapshot."""
        if self._passed is None and wanted == self._open == Metrics():
            return
        self._snapshot = Snapshot(document, self._report.counts.copy(), started)
        if wanted != self._open or self._retry or (self._passed and self._server is None):
            self._retry = False
            self._open = wanted
            self._background.run(KEY, lambda: self._use(wanted))
        elif self._textfile is not None:
            self._textfile.show(self._snapshot)

    def close(self) -> None:
        """Close the textfile and the server; wait for an import half a second at most."""
        self._background.finish([KEY], _LAST_SECONDS)
        for output in (self._textfile, self._server):
            if output is not None:
                output.close()
        self._textfile = self._server = None

    def _use(self, wanted: Metrics) -> None:
        """Open and close what the config has changed.  A thread calls this, since it imports modules."""
        before, self._used = self._used, wanted
        try:
            if self._passed is not None or wanted != Metrics():
                check_version(_MODULES[0])
            if wanted.textfile != before.textfile and self._textfile is not None:
                self._textfile.close()
                self._textfile = None
            if wanted.textfile is not None and self._textfile is None:
                from binfmtd.daemon.metrics.textfile import Textfile

                self._textfile = Textfile(wanted.textfile, self._report.notices.metrics_failed)
            if self._passed is None and wanted.listen != before.listen and self._server is not None:
                self._server.close()
                self._server = None
            if self._server is None and (listener := self._passed or self._listen(wanted.listen)) is not None:
                from binfmtd.daemon.metrics.http_server import HttpServer

                self._server = HttpServer(listener, self._answer, self._report.notices.metrics_failed)
                self._report.notices.listening(_shown(listener.getsockname()))
            if self._server is not None or self._textfile is not None:
                self._load_modules()
        except (OSError, RuntimeError) as error:  # no descriptors left, no threads
            self._report.notices.metrics_failed(
                f"[metrics]: the textfile or the HTTP server cannot be started: {error}; the daemon tries again at the "
                "next reload or resync"
            )
        except ImportError as error:
            self._report.notices.metrics_failed(f"[metrics]: {cannot_load(error)}")
        if self._textfile is not None and self._snapshot is not None:
            self._textfile.show(self._snapshot)

    def _load_modules(self) -> None:
        """Load what answers need: by the time of a request, an upgrade may have replaced it."""
        for module in _MODULES:
            try:
                importlib.import_module(module)
            except Exception as error:  # noqa: BLE001  a half-replaced package can raise anything; repairs go on
                if getattr(error, "name", None) != "prometheus_client":  # without it, HTTP answers with the remedy
                    self._report.notices.metrics_failed(f"[metrics]: {cannot_load(error)}")

    def _listen(self, address: tuple[str, int] | None) -> socket.socket | None:
        if address is None:
            return None
        try:
            return _listening(address)
        except OSError as error:
            why = f"{error.strerror or error}; the daemon tries again at the next reload or resync"
            self._report.notices.metrics_failed(f'[metrics] listen = "{_shown(address)}": {why}')
            return None

    def _answer(self, request: bytes) -> bytes:
        from binfmtd.daemon.metrics.http_answer import answer

        assert self._snapshot is not None  # noqa: S101  for the type checker: it is set before the server starts
        return answer(request, self._snapshot, alive=time.monotonic() < self._wait.back_at)


def _shown(address: Any) -> str:
    """Return a socket's own address as the config writes it; for a Unix socket its path."""
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    return str(address)


def _listening(address: tuple[str, int]) -> socket.socket:
    """Return a listening socket; one for all IPv6 addresses takes IPv4 as well.  Raises OSError."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    return socket.create_server(address, family=family, dualstack_ipv6=address[0] == "::")
