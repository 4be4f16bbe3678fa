"""``[metrics]`` publishes the daemon's state by HTTP and in a file, and no client can harm the daemon."""

import json
import os
import resource
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.daemon import Daemon, StartDaemon
from support.instance import Instance
from support.programs import exits_with, install
from support.waiting import SLOWNESS, wait_until

from binfmtd.daemon.metrics.http_server import BURST, CONNECTIONS, RATE

HANDLERS = """
[handlers.one]
magic = '\\x00one'
interpreter = "/usr/bin/true"
flags = "F"
[handlers.low]
magic = '\\x00lo'
interpreter = "/usr/bin/true"
flags = "F"
[handlers.high]
magic = '\\x00low'
interpreter = "/usr/bin/true"
flags = "F"
priority = 1
"""


def config(*metrics: str, top: str = "") -> str:
    return f"architectures = []\n{top}\n[metrics]\n" + "\n".join(metrics) + HANDLERS


class Http:
    """A client of one daemon."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        """Return status, type and body."""
        request = Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urlopen(request, timeout=30 * SLOWNESS) as answer:  # noqa: S310  our own
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read().decode()

    def sample(self, name: str, **labels: str) -> float:
        """Return one number of /metrics; 0 if it is missing."""
        return find(self.get("/metrics")[2], name, **labels)

    def say(self, data: bytes) -> bytes:
        """Send these bytes, and return the whole answer."""
        with socket.create_connection(("127.0.0.1", self.port), 30 * SLOWNESS) as connection:
            connection.sendall(data)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


def find(text: str, name: str, **labels: str) -> float:
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return next((sample.value for sample in samples if (sample.name, sample.labels) == (name, labels)), 0.0)


@pytest.fixture
def http(port: int) -> Http:
    return Http(port)


def listen(port: int) -> str:
    return f'listen = "127.0.0.1:{port}"'


def test_paths(start_daemon: StartDaemon, http: Http) -> None:
    """From READY=1 on there are metrics, health, readiness, and the status as JSON and as HTML."""
    daemon = start_daemon(config(listen(http.port)))
    assert http.get("/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
    assert http.get("/readyz") == (200, "text/plain; charset=utf-8", "ok\n")
    status, kind, body = http.get("/status")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body)["handlers"] == daemon.status()["handlers"]
    status, kind, body = http.get("/status", Accept="text/html,*/*")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert '<td data-label="handler">high</td>' in body
    assert http.get("/status.json", Accept="text/html")[1] == "application/json"
    assert http.sample("binfmtd_handlers", state="registered") == 3
    assert http.sample("binfmtd_ready") == 1
    assert http.get("/nope")[0] == 404
    assert http.say(b"POST /status HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 405 ")


def test_each_kind_of_drift_is_counted(instance: Instance, start_daemon: StartDaemon, http: Http) -> None:
    """Each kind of drift is counted under its entry; a foreign entry has no name there."""
    start_daemon(config(listen(http.port), top='unmanaged = "remove"'))

    def counted(drift: str, entry: str, do: Callable[[], None]) -> None:
        before = http.sample("binfmtd_repairs_total", entry=entry, drift=drift)
        do()
        wait_until(
            lambda: http.sample("binfmtd_repairs_total", entry=entry, drift=drift) == before + 1,
            what=f"{drift} of {entry!r} counted",
        )
        wait_until(lambda: http.get("/readyz")[0] == 200 and http.sample("binfmtd_state", state="converged"))

    counted("missing", "one", lambda: instance.remove("one"))
    counted("disabled", "one", lambda: instance.write("one", b"0"))
    counted("switched_off", "status", lambda: instance.write("status", b"0"))
    counted("unwanted", "", lambda: instance.register(b":theirs:M::theirs::/usr/bin/true:"))

    def change() -> None:
        instance.remove("one")
        instance.register(b":one:M::else::/usr/bin/true:F")

    counted("changed", "one", change)

    def exchange() -> None:  # a new inode, so that both are newer than "high"
        instance.remove("low")
        instance.register(b":low:M::\\x00lo::/usr/bin/true:F")

    counted("out_of_order", "high", exchange)
    assert http.sample("binfmtd_repair_duration_seconds_count") >= 4
    assert http.sample("binfmtd_settle_duration_seconds_sum") > 0


def test_an_upgraded_interpreter_is_counted(
    instance: Instance, start_daemon: StartDaemon, http: Http, tmp_path: Path
) -> None:
    """A repair after an upgrade of the interpreter is counted as stale_interpreter."""
    (tmp_path / "bin").mkdir(mode=0o755)
    interpreter = install(tmp_path / "bin" / "interpreter", exits_with(1))
    start_daemon(config(listen(http.port)).replace("/usr/bin/true", str(interpreter), 1))
    install(interpreter, exits_with(2))
    wait_until(
        lambda: http.sample("binfmtd_repairs_total", entry="one", drift="stale_interpreter") == 1, what="it counted"
    )
    assert "one" in instance.names()


def test_not_ready_while_a_handler_is_not_served(instance: Instance, start_daemon: StartDaemon, http: Http) -> None:
    """A declared handler that is not served makes the daemon unready, and the answer names the handler."""
    missing = '[handlers.absent]\nmagic = "absent"\ninterpreter = "/nowhere/at/all"\n'
    start_daemon(config(listen(http.port)) + missing)
    status, _, body = http.get("/readyz")
    assert status == 503
    assert body.startswith("absent is waiting: ")
    assert http.get("/healthz")[0] == 200
    assert instance.names() != []


def test_a_reload_changes_where_metrics_go(start_daemon: StartDaemon, http: Http, tmp_path: Path) -> None:
    """A reload turns HTTP and the file on and off."""
    file = tmp_path / "out" / "binfmtd.prom"
    file.parent.mkdir()
    daemon = start_daemon(config())
    for generation, lines in enumerate(([listen(http.port)], [f'textfile = "{file}"'], []), start=2):
        daemon.config.write_text(config(*lines))
        daemon.reload()
        in_force(daemon, generation)
        if generation == 2:
            wait_until(
                lambda: answers(http) and http.sample("binfmtd_config_generation") == 2,
                what="the new configuration in the metrics",
            )
        elif generation == 3:
            wait_until(lambda: not answers(http), what="a refused connection")
            wait_until(file.exists, what="the file")
        else:
            wait_until(lambda: not file.exists(), what="no file")
    assert daemon.logs("metrics_failed") == []


def in_force(daemon: Daemon, generation: int) -> None:
    daemon.wait_status(lambda status: status["config"]["generation"] == generation, "the new config")


def answers(http: Http) -> bool:
    try:
        socket.create_connection(("127.0.0.1", http.port), 10).close()
    except ConnectionRefusedError:
        return False
    return True


def test_textfile(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The file is complete, readable for all users, not written through a link, and removed at the daemon's end."""
    file, elsewhere = tmp_path / "binfmtd.prom", tmp_path / "elsewhere"
    elsewhere.write_text("not ours")
    file.symlink_to(elsewhere)
    daemon = start_daemon(config(f'textfile = "{file}"'))
    wait_until(lambda: not file.is_symlink(), what="the file")
    assert elsewhere.read_text() == "not ours"
    assert file.stat().st_mode & 0o7777 == 0o644
    instance.remove("one")
    repaired = {"entry": "one", "drift": "missing"}
    wait_until(lambda: find(file.read_text(), "binfmtd_repairs_total", **repaired) == 1, what="the repair in the file")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".binfmtd.prom")]
    assert daemon.terminate() == 0
    assert not file.exists()


def test_what_cannot_be_opened_is_logged_once(
    instance: Instance, start_daemon: StartDaemon, port: int, tmp_path: Path
) -> None:
    """A port in use and a missing directory are logged once and stop no repair; at each resync both are tried again."""
    file = tmp_path / "later" / "binfmtd.prom"
    with socket.create_server(("127.0.0.1", port)):
        daemon = start_daemon(config(listen(port), f'textfile = "{file}"', top='resync = "1s"'))
        wait_until(lambda: daemon.status()["passes"] and len(daemon.logs("metrics_failed")) == 2, what="both said")
        instance.remove("one")
        wait_until(lambda: "one" in instance.names(), what="the repair")
    reasons = sorted(line["reason"] for line in daemon.logs("metrics_failed"))
    assert reasons[0].startswith(f'[metrics] listen = "127.0.0.1:{port}": Address already in use')
    assert reasons[1].startswith(f'[metrics] textfile = "{file}": No such file or directory')
    file.parent.mkdir()
    daemon.wait_for_log("listening", address=f"127.0.0.1:{port}")
    wait_until(file.exists, what="the file")
    assert len(daemon.logs("metrics_failed")) == 2


def test_a_socket_from_systemd(instance: Instance, tmp_path: Path, port: int) -> None:
    """A socket from systemd is served without a config key; sockets under other names are ignored."""
    path = tmp_path / "config.toml"
    path.write_text(config())
    command = [sys.executable, "-m", "binfmtd", "run", "--config", str(path), "--state-dir", str(tmp_path / "state")]
    with socket.create_server(("127.0.0.1", port)) as listener:
        number = listener.fileno()
        script = f"exec 3<&{number} 4</dev/null; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=metrics:other exec "
        daemon = instance.popen(
            ["bash", "-c", script + shlex.join(command)], pass_fds=[number], stderr=subprocess.DEVNULL
        )
    assert Http(port).get("/healthz")[0] == 200  # the connection waits in the socket until the daemon has started
    assert Http(port).sample("binfmtd_handlers", state="registered") == 3
    daemon.terminate()
    assert daemon.wait(30 * SLOWNESS) == 0


def hostile(http: Http) -> Iterator[bytes]:
    yield b"\0\xff\x16\x03\x01junk\r\n\r\n"
    yield b"GET\r\n\r\n"
    yield b"GET / HTTP/9.9\r\n\r\n"
    yield b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n"
    yield b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200_000 + b"\r\n"
    yield b"BREW /metrics HTTP/1.1\r\n\r\n"
    yield b"POST /metrics HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100_000
    yield b"GET /../../etc/passwd HTTP/1.1\r\nHost: " + str(http.port).encode() + b"\r\n\r\n"


def test_no_client_can_do_harm(
    instance: Instance, start_daemon: StartDaemon, http: Http, times: Callable[[int], int]
) -> None:
    """After junk, huge requests and idle connections repairs and answers go on, and no descriptor is leaked."""
    daemon = start_daemon(config(listen(http.port)))
    descriptors = Path(f"/proc/{daemon.pid}/fd")
    assert http.get("/metrics")[0] == 200
    before = len(os.listdir(descriptors))
    for data in hostile(http):
        try:
            answer = http.say(data)
        except ConnectionError:  # the daemon has closed the connection
            continue
        assert not answer.startswith(b"HTTP/1.1 200")
        assert b"passwd" not in answer
    with ExitStack() as waiting:
        for number in range(times(10_000)):
            slow = waiting.enter_context(closing(socket.create_connection(("127.0.0.1", http.port), 30 * SLOWNESS)))
            slow.sendall(b"GET /metrics HT"[: number % 15])
        assert len(os.listdir(descriptors)) <= before + CONNECTIONS + 1
        instance.remove("one")
        wait_until(lambda: "one" in instance.names(), what="a repair meanwhile")
        assert http.get("/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
    wait_until(lambda: len(os.listdir(descriptors)) <= before, 30, what="all descriptors given back")
    assert not daemon.logs("metrics_failed")
    assert all(line["event"] for line in daemon.logs())  # no traceback, no line of asyncio's own
    assert daemon.terminate() == 0


def test_without_descriptors(start_daemon: StartDaemon, http: Http) -> None:
    """If no descriptor is free for a connection, that is logged once, and waiting clients are served afterwards."""
    daemon = start_daemon(config(listen(http.port)))
    assert http.get("/healthz")[0] == 200
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    with socket.create_connection(("127.0.0.1", http.port), 30 * SLOWNESS) as waiting:
        waiting.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        reason = daemon.wait_for_log("metrics_failed")["reason"]
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
        assert waiting.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert reason == "[metrics] HTTP: cannot accept a connection: Too many open files; trying again every second"
    assert len(daemon.logs("metrics_failed")) == 1


def test_clients_that_ask_without_a_pause(instance: Instance, start_daemon: StartDaemon, http: Http) -> None:
    """Clients without a pause are answered at a bounded rate, by a thread of lower priority, and repairs go on."""
    daemon = start_daemon(config(listen(http.port)))
    answered = 0
    began = time.monotonic()

    def flood() -> int:
        count = 0
        while time.monotonic() < began + 4:
            assert http.get("/healthz")[0] == 200
            count += 1
        return count

    with ThreadPoolExecutor(2) as clients:
        floods = [clients.submit(flood) for _ in range(2)]
        for _ in range(3):
            before = instance.inode("one")
            instance.remove("one")
            instance.wait_registered_anew("one", before)
        answered = sum(each.result() for each in floods)
    assert answered <= BURST + RATE * (time.monotonic() - began) + 1
    nice = {task.name: int(stat_of(task)[16]) for task in Path(f"/proc/{daemon.pid}/task").iterdir()}
    assert max(nice.values()) > nice[str(daemon.pid)]


def stat_of(task: Path) -> list[str]:
    """Return the fields of proc_pid_stat(5) after the name: the state is number 0, the nice value number 16."""
    return (task / "stat").read_text().rpartition(")")[2].split()


def test_no_threads_without_metrics(start_daemon: StartDaemon) -> None:
    """Without [metrics] only the log's thread stays, and `service` does not import the HTTP modules."""
    daemon = start_daemon("architectures = []", ("--log-level", "debug"))
    daemon.wait_for_log("modules_loaded")
    wait_until(lambda: len(os.listdir(f"/proc/{daemon.pid}/task")) <= 2, what="the end of the other threads")
    loaded = "[name for name in ('http.server', 'prometheus_client') if name in sys.modules]"
    check = f"import sys, binfmtd.daemon.loop; print({loaded})"
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
