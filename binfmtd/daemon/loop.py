"""The loop: one wait, and the order of work after it.

The order is by urgency.  First come stand-ins, without which programs fail.  Then comes everything else that the events
call for, then results of threads, signals and deadlines, then the pass that is under way: a turn continues it for 1 ms
at most, and until a descriptor is readable.  The status is published when no pass is under way.  So a config or a pause
in it is one that a pass has put into effect.

Example: another program removes an entry.  inotify wakes the loop, ``repair`` registers its stand-in, and ``publish``
has that written to the status file.  20 ms later a wait ends at a deadline, ``run_due`` begins a pass, and
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


class Loop:
    """The thread that makes all repairs."""

    def __init__(self, parts: Parts) -> None:
        self._controller = Controller(parts)
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
                self._poller.until(time.monotonic() + _REST_SECONDS)  # what is due stays due
        self._controller.stop()

    def _turn(self) -> None:
        read_at = self._throttle.read_at
        idle = not (self._passes.under_way or self._readiness.unpublished)
        deadline = self._events.deadline(self._controller.due_at()) if idle else -inf
        cpu = time.thread_time()  # before the wait, which takes no CPU time: after it a repair may be urgent
        woken = self._poller.until(deadline, read_at)
        repaired = self._events.repair(read_at, readable=self._watch.descriptor in woken)
        self._events.handle(repaired, cpu)
        self._controller.handle(woken)
        self._controller.run_due()
        if self._passes.under_way:
            self._continue_pass()
        else:
            self._readiness.publish()
        self._controller.end_turn()

    def _continue_pass(self) -> None:
        until = time.monotonic() + PASS_SECONDS
        with ordinary_time():  # what is urgent has been done
            while self._passes.under_way:
                self._passes.step()
                if time.monotonic() >= until or self._poller.readable(self._throttle.read_at):
                    break
