"""HTTP, served by a thread of its own, which nobody on the network can make a burden to the loop.

* At most 32 connections, each for at most five seconds and 8 KiB of request; if one more comes, the oldest is dropped.
  So who only holds connections keeps nobody out who asks at once.
* At most 100 connections a second are accepted, 200 in a burst; the others wait in the kernel's queue.  So clients that
  ask without a pause cost some 2 % of a core, and a probe waits for two seconds at most.
* The thread runs at a lower priority than the loop: `nice` 0 where the loop has -10.
* Answers come from the newest snapshot, which is rendered once.
* Without descriptors left, it says so and rests for a second before it accepts again.
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

from binfmtd.daemon.http_answer import refusal
from binfmtd.kernel.scheduling import begin_thread

SECONDS = 5.0
RATE = 100.0  # connections a second
BURST = 200
_NICER = 10
_NICEST = 5  # lower still, builds that keep all cores busy could stop the thread while the loop waits for it
CONNECTIONS = 32
LONGEST_REQUEST = 8192  # bytes of line and headers
_LONGEST_REST = 1 << 20  # bytes that are read and thrown away so that the answer arrives
_REST_SECONDS = 1.0  # without descriptors
_SLICE = 1 << 16
_PATIENCE = 0.5  # seconds that the daemon's end waits for it


class HttpServer:
    """Serves a listening socket, which it closes at the end."""

    def __init__(
        self, listener: socket.socket, answer: Callable[[bytes], bytes], failed: Callable[[str], None]
    ) -> None:
        """``answer`` and ``failed`` are called in the thread; what ``failed`` gets is why a connection was refused."""
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
        """Stop serving."""
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._accepting.cancel)
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the loop's
        begin_thread()
        thread = threading.get_native_id()
        with suppress(OSError):  # a seccomp filter may forbid it
            before = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, max(before, min(before + _NICER, _NICEST)))
        with self._listener, asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(asyncio.wait([self._accepting]))  # and cancels what is still open

    async def _accept(self) -> None:
        """Accept for ever.  asyncio's own server accepts without counting, some hundred at once."""
        self._listener.settimeout(0)
        while True:
            await self._token()
            try:
                connection, _ = await self._loop.sock_accept(self._listener)
            except ConnectionError:  # gone before it was accepted
                continue
            except OSError as error:  # EMFILE, ENFILE, ENOBUFS, ENOMEM
                self._failed(f"[metrics] HTTP: {os.strerror(error.errno or 0)}")
                await asyncio.sleep(_REST_SECONDS)
                continue
            if len(self._open) >= CONNECTIONS:
                oldest = next(iter(self._open))
                oldest.cancel()
                await asyncio.wait([oldest])
            task = self._loop.create_task(self._connected(connection))
            self._open[task] = None
            task.add_done_callback(self._open.pop)
            await asyncio.sleep(0)  # it begins: who comes in thousands shall not keep the others from their turn

    async def _token(self) -> None:
        """Wait until one more connection may be accepted (a token bucket)."""
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) * RATE)
        self._filled_at = now
        if self._tokens < 1:
            await asyncio.sleep((1 - self._tokens) / RATE)
        self._tokens -= 1

    async def _connected(self, connection: socket.socket) -> None:
        with suppress(OSError, TimeoutError), connection:  # gone, or too slow
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
        # Closed before the other side has sent all, the answer could be lost on its way.
        rest = _LONGEST_REST
        while rest > 0 and (more := await self._loop.sock_recv(connection, _SLICE)):
            rest -= len(more)
