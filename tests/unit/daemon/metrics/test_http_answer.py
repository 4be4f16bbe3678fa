"""The answer to an HTTP request, whatever its bytes are."""

import sys
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.daemon.metrics.http_answer import answer
from binfmtd.files.distribution import install_module
from binfmtd.report.counts import Counts
from binfmtd.report.snapshot import Snapshot

DOCUMENT: dict[str, Any] = {
    "state": "converged",
    "problem": None,
    "lacking": None,
    "mount": {"directory": "/m", "read_only": False, "host_unmounted": False},
    "seal": {"state": "off", "reason": ""},
    "config": {"path": "/c", "files": [], "generation": 1, "loaded_at": "2026-01-02T03:04:05.678+00:00", "error": None},
    "handlers": [],
    "contended": [],
    "paused": [],
    "probed": None,
    "foreign": [],
    "foreign_count": {"enabled": 0, "disabled": 0},
    "passes": 1,
    "repairs": 0,
    "last_pass": None,
}
STUCK = b"the daemon's main loop is stuck\n"


@pytest.fixture
def snapshot() -> Snapshot:
    return Snapshot(DOCUMENT, Counts(1.5e9), started=True)


def parts(response: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body; the response has to be whole."""
    head, _, body = response.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert first.startswith("HTTP/1.1 ")
    assert int(headers["content-length"]) == len(body)
    return int(first.split()[1]), headers, body


def get(path: str, snapshot: Snapshot, *, alive: bool = True) -> tuple[int, dict[str, str], bytes]:
    return parts(answer(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), snapshot, alive=alive))


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_loop_that_does_not_come_round(snapshot: Snapshot, path: str) -> None:
    """A stuck main loop is neither healthy nor ready, whatever its last snapshot has; the status is still served."""
    assert get(path, snapshot)[::2] == (200, b"ok\n")
    assert get(path, snapshot, alive=False)[::2] == (503, STUCK)
    assert get("/status", snapshot, alive=False)[0] == 200


def test_before_the_first_pass_it_is_healthy_and_not_ready() -> None:
    """Before the first pass the daemon is healthy and not ready, so a probe at the start does not kill it."""
    starting = Snapshot(DOCUMENT, Counts(1.5e9), started=False)
    assert get("/healthz", starting)[0] == 200
    assert get("/readyz", starting)[::2] == (503, b"the daemon is starting: its first pass has not ended\n")


def test_before_the_first_pass_the_reason_is_the_logs() -> None:
    """If no pass can be made, the daemon is not ready for the reason that is in the log."""
    why = "/m: binfmt_misc is not mounted"
    starting = Snapshot({**DOCUMENT, "problem": why, "mount": None}, Counts(1.5e9), started=False)
    assert get("/readyz", starting)[::2] == (503, f"{why}\n".encode())


def test_without_prometheus_client(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without prometheus_client /metrics has the command that installs it, and everything else is served."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "binfmtd.report.metrics", raising=False)
    status, _, body = get("/metrics", snapshot)
    assert status == 501
    assert install_module("prometheus_client").encode() in body
    assert get("/status", snapshot)[0] == 200


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"])
def test_only_get(snapshot: Snapshot, method: str) -> None:
    """Any method but GET is refused, and the answer has the header Allow."""
    status, headers, _ = parts(answer(f"{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n".encode(), snapshot, alive=True))
    assert (status, headers["allow"]) == (405, "GET")


LINES = st.builds(
    lambda *words: b" ".join(words),
    st.sampled_from([b"GET", b"get", b"POST", b"BREW", b"\xff"]) | st.binary(max_size=8),
    st.sampled_from([b"/", b"/metrics", b"/status?x=1", b"//", b"/../..", b"http://x/status"]) | st.binary(max_size=30),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1.1"]) | st.binary(max_size=8),
)


@given(line=LINES, rest=st.binary(max_size=60))
def test_any_bytes(line: bytes, rest: bytes) -> None:
    """Each request gets a whole answer that repeats nothing of it, or none at all."""
    response = answer(line + b"\r\n" + rest + b"\r\n\r\n", Snapshot(DOCUMENT, Counts(1.5e9), started=True), alive=True)
    if response and response.startswith(b"HTTP/1.1"):
        status, headers, _ = parts(response)
        assert HTTPStatus(status)
        assert headers["server"] == "binfmtd"
