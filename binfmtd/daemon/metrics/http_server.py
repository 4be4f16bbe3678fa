"""An HTTP server in its own thread, limited so that no client can slow down the loop.

* At most 32 connections, each for at most five seconds and 8 KiB of request; if one more comes, the oldest is dropped.
  So a client that only holds connections does not keep out one that sends its request at once.
* At most 100 connections a second are accepted, 200 in a burst; the others wait in the kernel's queue.  So clients that
  connect without a pause cost some 2 % of a core, and a health check waits for two seconds at most.
* The thread has a lower priority than the loop: `nice` 0 where the loop has -10.
* Answers come from the newest snapshot, which is rendered once.
* If no descriptor is left, the server reports that, and waits for a second before it accepts again.
"""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from binfmtd.daemon.metrics.http_answer import refusal
from binfmtd.host.scheduling import begin_thread

SECONDS = 5.0
RATE = 100.0  # connections a second
BURST = 200
_NICER = 10
_NICEST = 5  # at a lower priority, builds on all cores could stop the thread while the loop waits for it
CONNECTIONS = 32
LONGEST_REQUEST = 8192  # bytes of line and headers
_LONGEST_REST = 1 << 20  # bytes that are read and thrown away so that the answer arrives
_REST_SECONDS = 1.0  # seconds until it accepts again, if no descriptor was left
_SLICE = 1 << 16
_PATIENCE = 0.5  # seconds that the daemon's end waits for the thread


class HttpServer:
    """The server of one listening socket, which it closes at the end."""

    def __init__(
        self, listener: socket.socket, answer: Callable[[bytes], bytes], failed: Callable[[str], None]
    ) -> None:
        """``answer`` turns a request into its answer; ``failed`` gets the reason if no connection can be accepted.

        Both are called in the thread.
        """
        self._listener = listener
        self._answer = answer
        self._failed = failed
        self._open: dict[asyncio.Task[Any], None] = {}  # oldest first
        self._tokens, self._filled_at = float(BURST), time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._accepting = self._loop.create_task(self._accept())
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; wait for the thread, half a second at most."""
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._accepting.cancel)
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the loop handles signals
        begin_thread()
        thread = threading.get_native_id()
        with suppress(OSError):  # a seccomp filter may forbid it
            before = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, max(before, min(before + _NICER, _NICEST)))
        with self._listener, asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(asyncio.wait([self._accepting]))  # leaving the block cancels what is still open

    async def _accept(self) -> None:
        """Accept until cancelled.  asyncio's own server has no limit, and accepts some hundred connections at once."""
        self._listener.settimeout(0)
        while True:
            await self._token()
            try:
                connection, _ = await self._loop.sock_accept(self._listener)
            except ConnectionError:  # the client was gone before
                continue
            except OSError as error:  # EMFILE, ENFILE, ENOBUFS, ENOMEM
                self._failed(
                    f"[metrics] HTTP: cannot accept a connection: {os.strerror(error.errno or 0)}; trying again every "
                    "second"
                )
                await asyncio.sleep(_REST_SECONDS)
                continue
            if len(self._open) >= CONNECTIONS:
                oldest = next(iter(self._open))
                oldest.cancel()
                await asyncio.wait([oldest])
            task = self._loop.create_task(self._connected(connection))
            self._open[task] = None
            task.add_done_callback(self._open.pop)
            await asyncio.sleep(0)  # the task begins: thousands of new clients must not delay it

    async def _token(self) -> None:
        """Wait until one more connection may be accepted (a token bucket of BURST, refilled at RATE)."""
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) * RATE)
        self._filled_at = now
        if self._tokens < 1:
            await asyncio.sleep((1 - self._tokens) / RATE)
        self._tokens -= 1

    async def _connected(self, connection: socket.socket) -> None:
        with suppress(OSError, TimeoutError), connection:  # the client is gone, or too slow
            async with asyncio.timeout(SECONDS):
                await self._converse(connection)

    async def _converse(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request and b"\n\n" not in request and len(request) <= LONGEST_REQUEST:
            more = await self._loop.sock_recv(connection, LONGEST_REQUEST)
            if not more:
                return
            request += more
        if len(request) > LONGEST_REQUEST:
            answer = refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            answer = self._answer(request)
        await self._loop.sock_sendall(connection, answer)
        connection.shutdown(socket.SHUT_WR)
        # If the socket were closed before the client has sent everything, the answer could be lost on its way.
        rest = _LONGEST_REST
        while rest > 0 and (more := await self._loop.sock_recv(connection, _SLICE)):
            rest -= len(more)
