"""Signals: each sets a flag and wakes the loop.  SIGXCPU also ends real-time scheduling, in the handler itself."""

import os
import signal
from types import FrameType

from binfmtd.host.scheduling import end_real_time

_STOP = (signal.SIGTERM, signal.SIGINT)
HELD = (*_STOP, signal.SIGHUP)  # blocked from our first line on, until their handlers are installed


class Signals:
    """The flags that signals have set.  ``descriptor`` becomes readable with each signal; ``drain`` empties it."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self.child = False
        self.real_time_ended = False
        self.descriptor, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in (*_STOP, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)

    def drain(self) -> None:
        """Empty the pipe; a flag stays set until the loop takes it."""
        try:
            while os.read(self.descriptor, 4096):
                pass
        except BlockingIOError:
            pass

    def take_reload(self) -> bool:
        """Return True if SIGHUP has come since the last call."""
        has_come = self.reload
        if has_come:  # cleared only then, since a signal may come in between
            self.reload = False
        return has_come

    def take_child(self) -> bool:
        """Return True if SIGCHLD has come since the last call."""
        has_come = self.child
        if has_come:
            self.child = False
        return has_come

    def take_real_time_ended(self) -> bool:
        """Return True if SIGXCPU has ended real-time scheduling since the last call."""
        has_ended = self.real_time_ended
        if has_ended:
            self.real_time_ended = False
        return has_ended

    def ignore(self) -> None:
        """Ignore SIGTERM, SIGINT and SIGHUP from here on: a second signal must not interrupt Python's own end."""
        for number in HELD:
            signal.signal(number, signal.SIG_IGN)

    def expect_real_time_to_end(self) -> None:
        """Handle SIGXCPU from here on: the kernel sends it when the loop has gone too long without a wait."""
        signal.signal(signal.SIGXCPU, self._end_real_time)

    def _end_real_time(self, number: int, _frame: FrameType | None) -> None:
        """Schedule the loop ordinarily, in the handler: code that takes so long may never return to the loop."""
        if end_real_time():
            self.real_time_ended = True
        else:  # then RLIMIT_CPU is the reason; by default that ends the process
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        elif number == signal.SIGCHLD:
            self.child = True
        else:
            self.stop = True


def reap_orphans() -> None:
    """As process 1 of a container, collect orphaned processes that have ended; does not wait."""
    if os.getpid() != 1:
        return
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
