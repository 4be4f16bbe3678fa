"""Debian's docker-registry on a free port of the loopback interface, and a valve in front of it."""

import json
import re
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from support import Closing
from support.cli import Result, run
from support.layouts import Layout
from support.waiting import wait_until

USER, PASSWORD = "user", "secret"
_HTPASSWD = "user:$2y$05$hxZRI.WS/PMCze0Iw/DVOuyK0BNVBB4uvufk4WNyX/d8SSk6jUMdG\n"  # `htpasswd -nbB user secret`
_LISTENS = re.compile(r"listening on (127\.0\.0\.1:\d+)\D")  # with what follows, so the number is complete


class Registry(Closing):
    """One registry, from its start to ``close``.

    With ``credentials`` it requires USER and PASSWORD.  With ``tls`` it has a self-signed ``certificate``.
    """

    def __init__(self, directory: Path, *, credentials: bool = False, tls: bool = False) -> None:
        directory.mkdir()
        self.certificate = directory / "certificate.pem"
        self._data = directory / "data"
        self._log = directory / "log"
        self._credentials = credentials
        settings = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(self._data)}},
            "http": {"addr": "127.0.0.1:0"},
        }
        if credentials:
            (directory / "htpasswd").write_text(_HTPASSWD)
            settings["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
        if tls:
            key = self._make_certificate(directory / "key.pem")
            settings["http"] = {"addr": "127.0.0.1:0", "tls": {"certificate": str(self.certificate), "key": str(key)}}
        (directory / "config.yml").write_text(json.dumps(settings))  # JSON is YAML
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                ["docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=log
            )
        try:
            self.address = wait_until(self._listens, 30, "docker-registry")
        except BaseException:
            self.close()
            raise

    def _make_certificate(self, key: Path) -> Path:
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -subj /CN=registry -addext"
        files = ["-out", str(self.certificate), "-keyout", str(key)]
        made = run(["openssl", *words.split(), "subjectAltName=IP:127.0.0.1", *files])
        assert made.status == 0, made.stderr
        return key

    def _listens(self) -> str:
        """Return where it listens, from its log; empty until then."""
        assert self._server.poll() is None, self._log.read_text()
        found = _LISTENS.search(self._log.read_text())
        return found[1] if found else ""

    def close(self) -> None:
        """End it as a crash does; a second call does nothing."""
        self._server.kill()
        self._server.wait(60)

    def push(self, layout: Layout, name: str, reference: str) -> str:
        """Push an image with all its platforms; return its name in the registry."""
        options = [f"--dest-creds={USER}:{PASSWORD}"] if self._credentials else []
        source, target = f"oci:{layout.directory}:{name}", f"{self.address}/{reference}"
        skopeo(
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            *options,
            source,
            f"docker://{target}",
        )
        return target

    def blob(self, digest: str) -> Path:
        """Return the file of a blob or manifest on the registry's disk."""
        kind, _, value = digest.partition(":")
        return self._data / "docker" / "registry" / "v2" / "blobs" / kind / value[:2] / value / "data"


def skopeo(*arguments: str) -> Result:
    """Run skopeo; AssertionError with its messages if it fails."""
    result = run(["skopeo", *arguments], timeout=120)
    assert result.status == 0, result.stderr
    return result


class Valve(Closing):
    """A proxy for TCP that passes ``limit`` bytes of answers on, and no more; ``address`` is where it listens."""

    def __init__(self, target: str, limit: int) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._left = limit
        self._sockets: list[socket.socket] = []
        self._closed = threading.Event()
        self.reached = threading.Event()  # the limit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Close all connections."""
        self._closed.set()
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for source, target, counts in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass_on, args=(source, target, counts), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if counts and (self.reached.is_set() or self._left < len(data)):
                    self.reached.set()
                    self._closed.wait()
                    return
                self._left -= len(data) if counts else 0
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
