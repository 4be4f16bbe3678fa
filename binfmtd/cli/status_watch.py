"""``binfmtd status --watch``: the status anew, each time that it changes.

* inotify tells: the status file is renamed over, so its directory is watched, and those above while it is missing.
* The daemon's end is a change of the lock's file, which the kernel closes with it, however it ends; and it tells of the
  closing just before it lets go of the lock (fs/file_table.c, __fput).  So each change is looked at once more.
* A terminal is drawn anew, also when its size changes; anything else gets one state after another.
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
from binfmtd.daemon.state_dir import LOCK_NAME, running_pid
from binfmtd.daemon.watch import Watch
from binfmtd.errors import StateError
from binfmtd.kernel.interpreters import watched
from binfmtd.report.colour import takes_colours
from binfmtd.report.printable import even
from binfmtd.report.status_json import FILE_NAME, read_status

_ONCE_MORE_MS = 50
_UNHEARD_MS = 1000  # where no inotify is left, or ages are shown
# xterm's: another screen without a cursor, and back; the upper left corner; clear the rest of a line, of the screen.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_LINE, _END_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"

_Seen = tuple[dict[str, Any] | None, int | None, str]
"""The document, the daemon's process id (as ``running_pid``), and what is wrong with either."""


def watch(directory: str, *, as_json: bool) -> NoReturn:
    """Show it until somebody presses ^C (KeyboardInterrupt) or nobody reads any more (BrokenPipeError)."""
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
    """Whether stdout is a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class _Changes:
    """What there is to wake up for: files in the state directory, the terminal's size, and that nobody reads."""

    def __init__(self, paths: list[str], *, ages: bool) -> None:
        """``ages``: what is shown says how long ago something was, and is shown anew every second."""
        self._paths = paths
        self._ages = ages
        self._watch = Watch()
        self._unheard = False
        self._once_more = False
        self._poll = select.poll()
        self._poll.register(sys.stdout, 0)  # of a pipe that nobody reads any more it tells unasked
        resized = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(resized, select.POLLIN)
        self._resized = resized
        signal.signal(signal.SIGWINCH, lambda *_: os.eventfd_write(resized, 1))

    def arm(self) -> None:
        """Watch, and only then look."""
        if (descriptor := self._watch.open()) is not None:
            self._poll.register(descriptor, select.POLLIN)
        while True:
            directories = watched(self._paths)
            unwatched = self._watch.watch_files("status", directories)
            if watched(self._paths) == directories:  # else something moved between the walk and the watch
                break
        self._unheard = bool(unwatched or self._watch.exhausted)

    def wait(self) -> None:
        """Sleep until there may be something new."""
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
    """Another screen, and afterwards the one that was there."""
    print(_ENTER, end="", flush=True)
    try:
        yield
    finally:
        print(_LEAVE, end="", flush=True)
