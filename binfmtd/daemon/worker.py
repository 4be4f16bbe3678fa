"""The hands of the daemon: what is urgent at once, the rest in passes, and all events are heard in between.

Events that our own writes raised are left out: each write is remembered until the queue has been read after it.
"""

import errno
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from binfmtd.daemon.attachment import Attachment
from binfmtd.daemon.heard import Heard
from binfmtd.daemon.hot_path import HotPath, Reaction
from binfmtd.daemon.look import PassResult
from binfmtd.daemon.pacing import Pacing
from binfmtd.daemon.reconcile import Reconciler
from binfmtd.daemon.reporter import Reporter
from binfmtd.daemon.sealing import Sealing
from binfmtd.daemon.storm import Storm
from binfmtd.daemon.watch import Watch
from binfmtd.errors import BinfmtdError, MountError, WriteRefusedError
from binfmtd.kernel.bounded import BoundedCalls
from binfmtd.kernel.converge import Due
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.write import Writer, Wrote
from binfmtd.model.drift import Act, Action
from binfmtd.model.plan import INSTANCE
from binfmtd.model.standin import stand_in_name

OPENING_AT_START = 2.0  # seconds that the first pass waits for an interpreter's file system
OPENING = 0.02  # seconds that a repair waits for it
_REGISTERS_AGAIN = 0.002  # seconds from a removal by name to a registration by the same program

Force = Callable[[str], bool]


def nothing(_: str) -> bool:
    """Force nothing."""
    return False


class Answer(NamedTuple):
    """What the kernel was told, and has still to be reported."""

    look_for: Heard
    heard: Heard
    reaction: Reaction
    bricking: list[str]
    began: float
    seconds: float


class Worker:
    """Looks at the instance that the daemon is attached to, and writes to it."""

    def __init__(
        self,
        reconciler: Reconciler,
        attachment: Attachment,
        sealing: Sealing,
        watch: Watch,
        pacing: Pacing,
        storm: Storm,
        report: Reporter,
    ) -> None:
        self.opens = BoundedCalls(
            OPENING_AT_START
        )  # of interpreters by the kernel, on file systems that may not answer
        self.heard = Heard()  # what nobody has answered yet
        self.touched: set[str] | None = None  # entries to read again at the next pass; None: all
        self._reconciler = reconciler
        self._attachment = attachment
        self._sealing = sealing
        self._watch = watch
        self._pacing = pacing
        self._storm = storm
        self._report = report
        self._hot: HotPath | None = None
        self._waited: HotPath | None = None
        self._wrote: list[Wrote] = []

    @property
    def has_looked(self) -> bool:
        """Whether a pass has been made."""
        return self._hot is not None

    def look(self) -> None:
        """Look at everything without writing, before the first pass: what is seen may need facts about this host."""
        if self._attachment.mounted is not None:
            with suppress(MountError), Instance(self._attachment.mounted) as instance:  # the pass says why
                self._reconciler.look(instance)

    def listen(self) -> None:
        """Read what others did."""
        wrote, self._wrote = self._wrote, []
        heard = self._watch.read(wrote, flushed=self._rush)
        if heard.files:  # known before anything is written: no file is opened that was exchanged a moment ago
            self._reconciler.facts.interpreters.changed(heard.interpreters)
        self.heard.add(heard)

    def _rush(self) -> None:
        """Register the permanent stand-ins, before it is known what another program did."""
        if self._hot is None or self._attachment.mounted is None or self._storming():
            return
        cpu = time.thread_time()
        writer = Writer(self._attachment.mounted, seal=self._sealing.seal)
        with suppress(FileNotFoundError, WriteRefusedError):  # `react` comes next, and says why
            try:
                self._hot.rush(writer)
            finally:
                self._pacing.spent(time.thread_time() - cpu)
                self._wrote += writer.take_wrote()

    def forget_own(self) -> None:
        """The watch is new: it has not heard what we wrote before, and what it hears alike is somebody else's."""
        self._wrote.clear()

    def _storming(self) -> bool:
        return time.monotonic() < self._storm.listen_at

    def _unchanged(self, path: str) -> bool:
        """Tell if an interpreter is the file that was judged: by the events, or while they are not read by a look."""
        interpreters = self._reconciler.facts.interpreters
        return interpreters.unchanged(path) and (not self._storming() or interpreters.same(path))

    def repair(self) -> tuple[Heard, Reaction]:
        """Answer what was heard, the kernel first: stand-ins, what one write ends, and what stops every exec."""
        heard, self.heard = self.heard, Heard()
        if self._hot is not None and self._hot is not self._waited:
            self._await_registration(heard, self._hot)
        answer = self._answer(heard, heard)
        self.tell(answer)
        return heard, answer.reaction

    def repair_first(self) -> Answer | None:
        """Answer what somebody did during a pass; the rest of what was heard stays.

        It is to be told when the pass was reported, which knew nothing of it.
        """
        if self._storming():
            return None  # or one pass would lead to the next
        self.listen()
        if not (self.heard.names or self.heard.everything):
            return None
        heard, self.heard = self.heard, Heard()
        answer = self._answer(heard, heard)
        self.heard.add(heard.beside_entries())
        return answer

    def glance(self, names: Collection[str] = ()) -> bool:
        """The same for these handlers, or for all, though nobody was heard: during a storm.  True if that was news."""
        known = self._pacing.open()
        look_for = Heard({*names, *map(stand_in_name, names)}, everything=not names)
        look_for.written |= look_for.names  # it was no flush, of which more would be heard
        look_for.flushed = INSTANCE in names
        answer = self._answer(look_for, Heard())
        self.tell(answer)
        return bool(answer.reaction.found.keys() - known or answer.reaction.bridged or answer.reaction.kept)

    def _answer(self, look_for: Heard, heard: Heard) -> Answer:
        began = time.monotonic()
        reaction, bricking = self._repair(look_for)
        heard.flushed |= look_for.flushed  # a glance hears nothing, but sees it
        return Answer(look_for, heard, reaction, bricking, began, time.monotonic() - began)

    def tell(self, answer: Answer) -> None:
        """Report it.  The kernel has its handlers again: from here on nothing is urgent."""
        for name in answer.bricking:
            self._report.bricked(name)
        self._report.reacted(answer.reaction, answer.look_for, answer.seconds, self._pacing.open())
        self._pacing.noted(answer.heard, answer.reaction, answer.began, answer.began + answer.seconds)
        for name, refusal in answer.reaction.refused.items():
            self._reconciler.refused(name, refusal)
            self._attachment.failed(refusal)
        if self.touched is not None:
            self.touched |= answer.heard.names

    def _repair(self, heard: Heard) -> tuple[Reaction, list[str]]:
        reaction, bricking = Reaction(), list[str]()
        if self._hot is None or self._attachment.mounted is None or not (heard.names or heard.everything):
            return reaction, bricking
        try:
            with Instance(self._attachment.mounted) as instance:
                writer = Writer(instance, self.opens, self._sealing.seal)
                cpu = time.thread_time()
                try:
                    reaction = self._hot.react(heard, lambda: self._more(writer), instance, writer)
                    if reaction.bridged or reaction.kept or reaction.helped or INSTANCE in reaction.ended:
                        self._pacing.spent(time.thread_time() - cpu)
                    stood_in = [*reaction.bridged, *reaction.kept]
                    self._reconciler.stood_in(stood_in, instance, self._unchanged)
                    self._reconciler.removed_by_name(heard.written, instance)
                    bricking = self._reconciler.disable_bricking(
                        instance, writer, heard.names, everything=heard.everything
                    )
                finally:
                    self._wrote += writer.take_wrote()
        except MountError as error:
            heard.lost = True
            self._attachment.failed(error)
        except WriteRefusedError as error:
            self._attachment.failed(error)
            self._report.trouble(self._attachment.problem or str(error))
        return reaction, bricking

    def _await_registration(self, heard: Heard, hot: HotPath) -> None:
        """Wait for a moment for a program that has removed an entry by name to register another in its place.

        That one is newer and serves until the stand-in is above it.  Here little is left to do then, and no descriptor
        is open that would keep the program from unmounting.  Once between two passes.

        A shell truncates `register` before it writes the line, and the event of that comes first.
        """
        until = time.monotonic() + _REGISTERS_AGAIN
        while hot.is_served(heard) and not self._storming() and (left := until - time.monotonic()) > 0:
            if heard.everything and self._help(heard, hot):
                return
            self._waited = hot
            self._watch.wait(left)
            self.listen()
            heard.add(self.heard)
            self.heard = Heard()

    def _help(self, heard: Heard, hot: HotPath) -> bool:
        """Have a helper serve if an entry was registered again; True if so, or if there is no instance any more."""
        if self._attachment.mounted is None:
            return True
        cpu = time.thread_time()
        with suppress(MountError, WriteRefusedError), Instance(self._attachment.mounted) as instance:
            writer = Writer(instance, seal=self._sealing.seal)
            try:
                found = hot.help(heard, instance, writer)
            finally:
                self._wrote += writer.take_wrote()
            if found:
                self._pacing.spent(time.thread_time() - cpu)
            return found
        return True

    def _more(self, writer: Writer) -> Heard:
        """What others did since the last look, for whoever answers it."""
        if not self._storming():
            self._wrote += writer.take_wrote()
            self.listen()
        more, self.heard = self.heard, Heard()
        return more

    def make_pass(self, trigger: str, *, at_once: bool = False, force: Force = nothing) -> PassResult | None:
        """Look at everything and do what is due.

        ``at_once``: nobody can be at work yet on what has not drifted before.  ``force``: which names are settled
        whoever is.
        None if that was not possible; it was said why.  Raises WriteRefusedError if this process may not write at all.
        """
        if self._attachment.mounted is None:
            return None
        touched, self.touched = self.touched, set()
        open_before = self._pacing.open()
        only_bridging = trigger == "interpreter"  # everything else waits until it is quiet

        def due(name: str) -> Due:
            if force(name):
                return Due.FORCED
            if at_once and name not in open_before:
                return Due.QUIET
            return min(self._pacing.due(name), Due.LATER) if only_bridging else self._pacing.due(name)

        def allow(action: Action) -> bool:
            if only_bridging and action.act is not Act.REPLACE:
                return False
            return force(action.entry) or self._pacing.allow(action)

        def disturbed(name: str) -> bool:
            if self._storming():
                return True  # as it is at each moment
            hear()
            return self.heard.everything or name in self.heard.names

        def removed(name: str) -> bool:
            hear()  # also in a storm: nothing else tells it from what went with a flush
            return name in self.heard.written

        def hear() -> None:
            self._wrote += writer.take_wrote()
            self.listen()

        try:
            with Instance(self._attachment.mounted) as instance:
                writer = Writer(instance, self.opens, self._sealing.seal)
                try:
                    result = self._reconciler.make_pass(
                        instance,
                        writer,
                        touched,
                        due=due,
                        disturbed=disturbed,
                        removed=removed,
                        allow=allow,
                        keeps=partial(self._pacing.may_keep, at_once=at_once),
                        unchanged=self._unchanged,
                        last=trigger == "stop",
                    )
                finally:
                    self._wrote += writer.take_wrote()
        except MountError as error:
            self.touched = None
            self._attachment.failed(error)
            if trigger == "watch_lost" or not self.has_looked:
                # Looking for it again has not helped, or never will: wait for the mount table, or resync.
                self._attachment.mounted = None
                self._pacing.forget()
                self._report.trouble(str(error))
            else:
                self.heard.lost = True  # the loop reacts to it
            return None
        except WriteRefusedError as error:
            if not self.has_looked and error.errno in (errno.EACCES, errno.EPERM):
                raise  # from the start nothing may be written, and no waiting will change that
            self.touched = None
            self._attachment.failed(error)
            self._report.trouble(self._attachment.problem or str(error))
            self._pacing.forget()
            # What serves, serves; and a seal may last, so that the start does not wait for its end.
            with suppress(MountError), Instance(self._attachment.mounted) as instance:
                look = self._report.status.look = self._reconciler.look(instance)
                return PassResult(look) if self._attachment.mounted.sealed else None
            return None
        self._take_in(result, at_once=at_once)
        return result

    def _take_in(self, result: PassResult, *, at_once: bool) -> None:
        """Know for the hot path and the clocks what a pass found and did."""
        failed, pacing = self._reconciler.failed, self._pacing
        for error in failed.values():
            self._attachment.failed(error)
        self._hot = HotPath(
            result.look,
            {*failed, *result.look.plan.blocked},
            pacing.may_bridge,
            pacing.may_switch,
            self._unchanged,
        )
        still_open = {action.entry: action.drift for action in result.look.plan.actions}
        registered = any(action.act in (Act.REGISTER, Act.REPLACE) for action in result.done)
        # A flush while nobody listened: what this pass has registered is gone again, as is all else.
        unheard = registered and self._storming() and self._hot.nothing_left(still_open)
        pacing.passed(result, failed, at_once=at_once, flushed=self.heard.flushed or unheard)
        if unheard:
            pacing.flushed_again()

    def remove_owned(self) -> None:
        """Take away all that is ours (`on_stop = "remove"`)."""
        if self._attachment.mounted is None:
            return
        try:
            with Instance(self._attachment.mounted) as instance:
                writer = Writer(instance, seal=self._sealing.seal)
                self._report.removed(*self._reconciler.remove_owned(instance, writer))
        except BinfmtdError as error:
            self._report.trouble(str(error))
