"""A proxy as companies have them: it decrypts what passes, and shows its clients certificates of its own authority.

A client has to know the authority's certificate, ``authority``.  Only HTTPS passes: a client asks for a connection to
a host (CONNECT), and gets one that ends here, with a certificate for that host.  The proxy itself is a client of the
host.
"""

import select
import socket
import ssl
import threading
from contextlib import closing, suppress
from pathlib import Path

from support.cli import run

_CONFIG = """
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[host]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:{name}
"""
_PIECE = 65536


class SiteProxy:
    """One proxy, from its start to ``close``; ``hosts`` are those that clients asked for.

    ``upstream``: the certificates that it accepts itself; by default the system's.
    """

    def __init__(self, directory: Path, upstream: str | None = None) -> None:
        directory.mkdir()
        self.hosts: set[str] = set()
        self._directory = directory
        self.authority = self._make("authority", "authority")
        self._upstream = ssl.create_default_context(cafile=upstream)
        # Later versions send messages that select() takes for data.
        self._upstream.maximum_version = ssl.TLSVersion.TLSv1_2
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _make(self, kind: str, name: str) -> Path:
        """Make a key and a certificate, by the authority or of it, in one file; return that."""
        config, key, certificate = (self._directory / f"{name}.{suffix}" for suffix in ("cnf", "key", "pem"))
        config.write_text(_CONFIG.format(name=name))
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
        files = ["-config", config, "-extensions", kind, "-keyout", key, "-out", certificate]
        if kind == "host":
            files += ["-CA", self.authority, "-CAkey", self._directory / "authority.key"]
        made = run(["openssl", *words, *map(str, files)])
        assert made.status == 0, made.stderr
        return certificate

    def _context(self, host: str) -> ssl.SSLContext:
        with self._lock:
            self.hosts.add(host)
            if host not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                context.load_cert_chain(self._make("host", host), self._directory / f"{host}.key")
                self._contexts[host] = context
            return self._contexts[host]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), closing(client):
            asked = b""
            while b"\r\n\r\n" not in asked:
                piece = client.recv(_PIECE)
                if not piece:
                    return
                asked += piece
            method, target, _ = asked.decode("latin-1").split(maxsplit=2)
            host, _, port = target.rpartition(":")
            if method != "CONNECT":
                client.sendall(b"HTTP/1.1 403 Only HTTPS passes\r\nContent-Length: 0\r\n\r\n")
                return
            context = self._context(host)
            with (
                socket.create_connection((host, int(port)), timeout=60) as connection,
                self._upstream.wrap_socket(connection, server_hostname=host) as server,
            ):
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                with context.wrap_socket(client, server_side=True) as decrypted:
                    _pass_on(decrypted, server)


def _pass_on(*pair: ssl.SSLSocket) -> None:
    """Pass data on in both directions, until one side ends the connection."""
    other = dict(zip(pair, reversed(pair), strict=True))
    while True:
        ready = [each for each in pair if each.pending()] or select.select(pair, [], [])[0]
        for each in ready:
            data = each.recv(_PIECE)
            if not data:
                return
            other[each].sendall(data)
