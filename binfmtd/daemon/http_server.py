"""HTTP, served by a thread of its own, which nobody on the network can make a burden to the loop.

* At most 32 connections, each for at most five seconds and 8 KiB of request; if one more comes, the oldest is dropped.
  So who only holds connections keeps nobody out who asks at once.
* Answers come from the newest snapshot, which is rendered once.
* Without descriptors left, asyncio rests for a second before it accepts again.
"""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from binfmtd.daemon.http_answer import refusal

SECONDS = 5.0
CONNECTIONS = 32
LONGEST_REQUEST = 8192  # bytes of line and headers
_LONGEST_REST = 1 << 20  # bytes that are read and thrown away so that the answer arrives
_BACKLOG = 16  # accepted at once, beyond what is open
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
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the loop's
        self._loop.set_exception_handler(self._trouble)
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner, suppress(OSError):
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listener, backlog=_BACKLOG)
        await self._end.wait()
        server.close()  # the runner cancels what is open

    def _trouble(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._failed(str(context.get("exception") or context["message"]))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  for the type checker: we are in one
        self._open[task] = None
        if len(self._open) > CONNECTIONS:
            next(iter(self._open)).cancel()
        try:
            async with asyncio.timeout(SECONDS):
                await self._converse(reader, writer)
        except (OSError, TimeoutError):  # gone, or too slow
            pass
        finally:
            del self._open[task]
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = b""
        while b"\r\n\r\n" not in request and b"\n\n" not in request and len(request) <= LONGEST_REQUEST:
            more = await reader.read(LONGEST_REQUEST)
            if not more:
                return
            request += more
        if len(request) > LONGEST_REQUEST:
            answer = refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            answer = self._answer(request)
        for start in range(0, len(answer), _SLICE):
            writer.write(answer[start : start + _SLICE])
            await writer.drain()
        writer.write_eof()
        # Closed before the other side has sent all, the answer could be lost on its way.
        rest = _LONGEST_REST
        while rest > 0 and (more := await reader.read(_SLICE)):
            rest -= len(more)
