"""From the bytes of an HTTP request to the bytes of its answer: which path serves what.

The standard library parses the request.  Only GET is allowed, and no request changes anything.
"""

import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO

from binfmtd.files.distribution import install_module
from binfmtd.report.printable import printable
from binfmtd.report.snapshot import Snapshot

TEXT = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"
JSON = "application/json"
HTML = "text/html; charset=utf-8"

_Answer = tuple[HTTPStatus, str, bytes]


def answer(request: bytes, snapshot: Snapshot, *, alive: bool) -> bytes:
    """Return the answer to a request (its line and its headers); ``alive``: the loop is not stuck."""
    return _Handler(request, snapshot, alive=alive).wfile.getvalue()


def refusal(status: HTTPStatus) -> bytes:
    """Return the answer to a request that is not read to its end."""
    return (f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").encode(
        "ascii"
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wfile: BytesIO

    def __init__(self, request: bytes, snapshot: Snapshot, *, alive: bool) -> None:
        # The base's __init__ is not called: it reads from a socket, and blocks for as long as that takes.
        self.rfile = BytesIO(request)
        self.wfile = BytesIO()
        self._snapshot = snapshot
        self._alive = alive
        self.handle_one_request()

    def do_GET(self) -> None:
        """Send what the path serves; 404 and the list of paths if it serves nothing."""
        path, _, _ = self.path.partition("?")
        known = self._PATHS.get(path)
        if known is None:
            self._send(HTTPStatus.NOT_FOUND, TEXT, f"not found; available paths: {', '.join(self._PATHS)}\n".encode())
        else:
            self._send(*known(self))

    def _refuse(self) -> None:
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"only GET is allowed\n")

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse  # noqa: N815

    def _metrics(self) -> _Answer:
        try:
            return HTTPStatus.OK, METRICS, self._snapshot.metrics
        except ImportError:
            remedy = f"run `{install_module('prometheus_client')}`, and restart the daemon"
            why = f"the Python package prometheus_client is not installed: {remedy}\n"
            return HTTPStatus.NOT_IMPLEMENTED, TEXT, why.encode()

    def _healthz(self) -> _Answer:
        return _verdict([] if self._alive else ["the daemon's main loop is stuck"])

    def _readyz(self) -> _Answer:
        return _verdict([*([] if self._alive else ["the daemon's main loop is stuck"]), *self._snapshot.unready])

    def _status(self) -> _Answer:
        html = "text/html" in self.headers.get("Accept", "")
        return (HTTPStatus.OK, HTML, self._snapshot.page(int(time.time()))) if html else self._json()

    def _json(self) -> _Answer:
        return HTTPStatus.OK, JSON, self._snapshot.json

    _PATHS: dict[str, Callable[["_Handler"], _Answer]] = {  # noqa: RUF012  it is never changed
        "/": _status,
        "/status": _status,
        "/status.json": _json,
        "/metrics": _metrics,
        "/healthz": _healthz,
        "/readyz": _readyz,
    }

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Vary", "Accept")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    # What the base class sends and logs by itself

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Send an error that repeats nothing of the request."""
        self.request_version = self.protocol_version  # it may not have been read
        self._send(HTTPStatus(code), TEXT, f"{HTTPStatus(code).phrase}\n".encode())

    def version_string(self) -> str:
        """Return a name that does not show clients the version of Python."""
        return "binfmtd"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        """Log nothing: requests and clients do not belong in the log."""


def _verdict(reasons: list[str]) -> _Answer:
    text = "\n".join([*map(printable, reasons)] or ["ok"]) + "\n"
    return HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK, TEXT, text.encode()
