"""Signals set a flag and wake the loop.  SIGXCPU also ends real-time scheduling, in the handler itself."""

import os
import signal
from types import FrameType

from binfmtd.kernel.scheduling import end_real_time

_STOP = (signal.SIGTERM, signal.SIGINT)
HELD = (*_STOP, signal.SIGHUP)  # blocked from the first line that we run until they can be answered


class Signals:
    """What was asked for by signal.  ``descriptor`` becomes readable with each; ``take`` clears it."""

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
        """Empty the pipe; the flags stay until whoever acts on one clears it."""
        try:
            while os.read(self.descriptor, 4096):
                pass
        except BlockingIOError:
            pass

    def ignore(self) -> None:
        """Be deaf from here on: the end has begun, and Python's own would give way to who asks for it once more."""
        for number in HELD:
            signal.signal(number, signal.SIG_IGN)

    def expect_real_time_to_end(self) -> None:
        """Answer SIGXCPU from here on: it says that the loop has not waited for too long."""
        signal.signal(signal.SIGXCPU, self._end_real_time)

    def _end_real_time(self, number: int, _frame: FrameType | None) -> None:
        """Schedule the loop ordinarily, in the handler: what takes so long may never come back to the loop."""
        if end_real_time():
            self.real_time_ended = True
        else:  # the other reason is RLIMIT_CPU, whose default is to end the process
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
    """As process 1 of a container, collect what others left behind."""
    if os.getpid() != 1:
        return
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
