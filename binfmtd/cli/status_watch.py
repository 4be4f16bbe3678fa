"""``binfmtd status --watch``: show the status again, each time that it changes.

* inotify reports changes.  The daemon replaces the status file by rename, so its directory is watched; and while that
  is missing, those above it.
* When the daemon ends, for whatever reason, the kernel closes the lock's file, and inotify reports that.  The event
  comes just before the kernel releases the lock (fs/file_table.c, __fput), so after each event we look once more.
* A terminal is redrawn, also when its size changes.  Any other output gets one state after another.
"""

import errno
import gc
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NoReturn

from binfmtd.cli.output import warn
from binfmtd.cli.status_view import NO_DAEMON, Page, view
from binfmtd.cli.table import size_of
from binfmtd.daemon.state_files.state_dir import LOCK_NAME, running_pid
from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.errors import StateError
from binfmtd.host.interpreters import watched
from binfmtd.report.colour import takes_colours
from binfmtd.report.printable import even
from binfmtd.report.status_json import FILE_NAME, read_status

_ONCE_MORE_MS = 50
_UNHEARD_MS = 1000  # between two looks where no inotify is left, or where ages are shown
# xterm's: another screen without a cursor, and back; the upper left corner; clear the rest of a line, of the screen.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_LINE, _END_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"

_Seen = tuple[dict[str, Any] | None, int | None, str]
"""The status document, the daemon's process id (as from ``running_pid``), and the problem with either, or empty."""


def watch(directory: str, *, as_json: bool) -> NoReturn:
    """Show the status until ^C (KeyboardInterrupt), or until the reader of the output exits (BrokenPipeError)."""
    gc.enable()
    drawing = not as_json and takes_a_drawing()
    paths = [os.path.abspath(os.path.join(directory, name)) for name in (FILE_NAME, LOCK_NAME)]
    changes = _Changes(paths, ages=drawing)
    with _screen() if drawing else nullcontext():
        before: _Seen | None = None
        while True:
            changes.arm()
            seen = _look(directory)
            if drawing:
                _draw(seen)
            elif seen != before:
                _print(seen, as_json=as_json)
            before = seen
            changes.wait()


def takes_a_drawing() -> bool:
    """Return True if stdout is a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class _Changes:
    """The events to wait for: changes of files or of the terminal's size, and the exit of the output's reader."""

    def __init__(self, paths: list[str], *, ages: bool) -> None:
        """``ages``: the text shows how long ago something was, so it is shown again every second."""
        self._paths = paths
        self._ages = ages
        self._watch = InotifyWatcher()
        self._unheard = False
        self._once_more = False
        self._poll = select.poll()
        self._poll.register(sys.stdout, 0)  # poll(2) reports POLLERR unasked when the reader of a pipe has exited
        resized = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(resized, select.POLLIN)
        self._resized = resized
        signal.signal(signal.SIGWINCH, lambda *_: os.eventfd_write(resized, 1))

    def arm(self) -> None:
        """Arm the watches.  The caller looks only after that, so no change in between is missed."""
        if (descriptor := self._watch.open()) is not None:
            self._poll.register(descriptor, select.POLLIN)
        while True:
            directories = watched(self._paths)
            unwatched = self._watch.watch_files("status", directories)
            if watched(self._paths) == directories:  # else something was moved between the walk and the watch
                break
        self._unheard = bool(unwatched or self._watch.exhausted)

    def wait(self) -> None:
        """Sleep until something may have changed.  Raises BrokenPipeError if the reader of the output has exited."""
        timeout = _ONCE_MORE_MS if self._once_more else _UNHEARD_MS if self._unheard or self._ages else None
        woken = dict(self._poll.poll(timeout))
        if woken.get(sys.stdout.fileno()):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        self._once_more = self._watch.descriptor in woken
        self._watch.read()
        with suppress(BlockingIOError):
            os.eventfd_read(self._resized)


def _look(directory: str) -> _Seen:
    pid = running_pid(directory)
    try:
        status = read_status(directory)
    except StateError as error:
        return None, pid, str(error)
    return status, pid, "" if pid is not None else NO_DAEMON


def _lines(status: dict[str, Any] | None, pid: int | None, problem: str, size: os.terminal_size | None) -> list[str]:
    if status is None:
        return [even(problem)]
    if size is None:
        return view(status, pid, Page(time.time()))
    return view(status, pid, Page(time.time(), size.columns, size.lines, takes_colours(sys.stdout)))


def _draw(seen: _Seen) -> None:
    lines = _lines(*seen, size_of(sys.stdout))
    print(_HOME + f"{_END_LINE}\r\n".join(lines) + _END_LINE + _END_SCREEN, end="", flush=True)


def _print(seen: _Seen, *, as_json: bool) -> None:
    status, pid, problem = seen
    if as_json and status is not None:
        print(json.dumps({**status, "pid": pid}), flush=True)
    elif status is not None:
        print("\n".join([*_lines(*seen, None), ""]), flush=True)
    if problem:
        warn(problem)


@contextmanager
def _screen() -> Iterator[None]:
    """Switch to another screen, and afterwards back to the previous one."""
    print(_ENTER, end="", flush=True)
    try:
        yield
    finally:
        print(_LEAVE, end="", flush=True)
