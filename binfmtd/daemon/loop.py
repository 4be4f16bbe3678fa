"""The loop: one wait, and the order of work after it.

The order is by urgency:

1. Stand-ins, without which programs fail, then everything else that the events call for.
2. Signals, and the deadlines that do not wait for a pass.
3. Unless a pass is under way: the status is published, results of threads are taken in, and what is due is done, until
   one of these begins a pass.  So a config or a pause in the status is one that a pass has put into effect.
4. The pass that is under way, for 1 ms at most, and until an event or a signal comes.  Its last step, which writes, has
   a turn of its own if the scan took most of this one.

Example: another program removes an entry.  inotify wakes the loop, ``repair`` registers its stand-in, and ``publish``
has that written to the status file.  20 ms later a wait ends at a deadline, ``between_passes`` begins a pass, and
``_continue_pass`` makes it.
"""

import gc
import time
from math import inf

from binfmtd.daemon.controller import Controller
from binfmtd.daemon.parts import Parts
from binfmtd.host.scheduling import ordinary_time

_REST_SECONDS = 1.0  # after a module could not be loaded
PASS_SECONDS = 0.001  # in which a turn continues a pass
WRITE_SECONDS = 0.0003  # of a pass in one turn, after which the step that writes begins another turn


class Loop:
    """The thread that makes all repairs."""

    def __init__(self, parts: Parts) -> None:
        self._controller = Controller(parts)
        self._background = parts.background
        self._events = parts.events
        self._passes = parts.passes
        self._poller = parts.poller
        self._readiness = parts.readiness
        self._signals = parts.signals
        self._throttle = parts.throttle
        self._watch = parts.watch

    def run(self, *, real_time: bool = False) -> None:
        """Run until SIGTERM or SIGINT.  Raises WriteRefusedError if this process may not write to binfmt_misc at all.

        ``real_time``: wait, and repair, with real-time priority if that is allowed.
        """
        self._controller.start(real_time=real_time)
        gc.freeze()  # what is loaded by now is no garbage, so a collection in a repair need not scan it
        gc.enable()
        while not self._signals.stop:
            try:
                self._turn()
            except ImportError as error:
                self._controller.module_missing(error)
                self._passes.restart()  # nothing stays open meanwhile
                self._poller.until(time.monotonic() + _REST_SECONDS)  # what is due stays due
        self._controller.stop()

    def _turn(self) -> None:
        read_at = self._throttle.read_at
        idle = not (self._passes.under_way or self._readiness.unpublished)
        deadline = self._events.deadline(self._controller.due_at()) if idle else -inf
        cpu = time.thread_time()  # before the wait, which takes no CPU time: after it a repair may be urgent
        woken = self._poller.until(deadline, read_at)
        repaired = self._events.repair(read_at, cpu, readable=self._watch.descriptor in woken)
        self._events.handle(repaired, cpu)
        self._controller.handle(woken)
        if not self._passes.under_way:
            self._readiness.publish()
            self._controller.between_passes(woken)
        if self._passes.under_way:
            self._continue_pass()
        self._controller.end_turn()

    def _continue_pass(self) -> None:
        began = time.monotonic()
        with ordinary_time():  # what is urgent has been done
            while self._passes.under_way:
                self._passes.step()
                if time.monotonic() - began >= (WRITE_SECONDS if self._passes.writes_next else PASS_SECONDS):
                    break
                if self._poller.readable(self._throttle.read_at, but=self._background.descriptor):
                    break
