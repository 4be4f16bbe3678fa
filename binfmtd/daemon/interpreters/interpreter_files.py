"""The daemon's facts about the interpreters' files: threads look at the files, and inotify watches them.

A file system that does not answer (NFS without its server, a FUSE process that hangs) stops each stat(2) on it.  So the
loop uses the last facts, and an inotify event marks those of its path as out of date.  The loop waits for a file only
in ``same`` (20 ms) and in ``read_head`` (50 ms), and before that for a core that runs the thread (20 ms, and a second).

* A look at some paths is one batch.  A thread takes one path after the other.  If a path does not answer within 50 ms,
  another thread takes the rest, and the batch ends without that path (at the daemon's start it waits longer).  The
  answer is taken in when it comes.
* A path keeps its last facts for a second after the look has begun.  If it has not answered by then, it hangs, and its
  handler waits.  So a slow or busy processor changes nothing.
* If 64 threads hang, or the kernel refuses another, the batch ends without the paths that no thread has taken.  They
  keep their facts, and are looked at a second later.
* A path that is out of date keeps its facts, but no entry with flag F is registered for it until it was looked at
  again.
* Each look first watches every directory that decides where the path leads, and then walks the path.  So it misses no
  change.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from binfmtd.daemon.background import Background
from binfmtd.daemon.watches.armed import Armed
from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.files.trust import Trust
from binfmtd.host.bounded import BoundedCalls
from binfmtd.host.facts import OWN_PROGRAM
from binfmtd.host.interpreters import file_identity, look_at, read_head, watched
from binfmtd.kernel.mount import remote_devices
from binfmtd.model.desired import InterpreterFacts

PATIENCE = 0.05  # seconds that the other paths of a batch wait for one
HANGS = 1.0  # seconds without an answer after which the last facts about a path are no longer used
_SHORT = 0.02  # seconds that the loop waits for an answer in ``same``
THREADS = 64  # at most, hanging ones included
_AGAIN = 1.0  # seconds until paths are looked at for which no thread was left
_UNKNOWN = InterpreterFacts()
_UNANSWERED = InterpreterFacts(
    problem="its file system does not answer, so the handler cannot be registered until it does"
)


class Answer(NamedTuple):
    """The result of a look: the facts, and the watches that were armed."""

    facts: InterpreterFacts
    armed: Armed


class _Path:
    """The facts about one path, and how current they are."""

    __slots__ = ("answered", "asked", "began", "changes", "facts", "hangs", "looking", "seen")

    def __init__(self) -> None:
        self.facts = _UNKNOWN
        self.answered = False
        self.looking = False
        self.began = 0.0  # monotonic, in seconds: when the last look began
        self.hangs = False
        self.changes = 0  # counts events and other reasons to look again
        self.asked = -1  # ``changes`` when the last look began
        self.seen = -1  # ``changes`` when the look began that gave the last answer

    @property
    def current(self) -> bool:
        return self.seen == self.changes


class _Batch:
    """One look at some paths.  ``open`` has those without an answer, ``left`` their number at the last ``step``."""

    def __init__(self, paths: Mapping[str, _Path], patient_until: float) -> None:
        self.paths = paths
        self.queue = deque(paths)
        self.patient_until = patient_until  # monotonic, in seconds: the batch does not end before without an answer
        self.open = set(self.queue)
        self.left = len(self.open)
        self.answers: deque[tuple[str, Answer]] = deque()


class InterpreterFiles:
    """All paths that the config or a foreign entry names."""

    def __init__(
        self,
        background: Background,
        watch: InotifyWatcher,
        looked: Callable[[bool], None],
        unwatched: Callable[[Collection[str]], None],
    ) -> None:
        """``looked`` is called when no batch is open any more, or a late answer came; True: facts have changed.

        ``unwatched`` gets the directories that cannot be watched.
        """
        self._background = background
        self._watch = watch
        self._looked = looked
        self._report_unwatched = unwatched
        self._trust = Trust.of_this_process()
        self._paths: dict[str, _Path] = {}
        self._foreign: set[str] = set()  # paths of foreign entries that were asked for since ``keep``
        self._batches: list[_Batch] = []
        self._step_at = float("inf")  # when to see which batches do not answer
        self._late: set[str] = set()  # paths without an answer whose batch has ended; they do not hang yet
        self._threads = 0
        self._again_at = float("-inf")  # when to look again at paths that no thread has taken
        self._remote_devices: frozenset[int] | None = None  # read by the first look of a batch; None: not read yet
        self._heads = BoundedCalls(PATIENCE, starting=HANGS)
        self._fingerprints = BoundedCalls(_SHORT)
        self._own_head = read_head(OWN_PROGRAM)
        self._news = False  # facts have changed since ``looked`` was called
        self.caught_up = False  # since then, facts about a path that was out of date have come

    # The facts

    def facts(self, paths: Collection[str]) -> Mapping[str, InterpreterFacts]:
        """Return the last facts about these paths; one that hangs, or never answered, has only a ``problem``."""
        return {path: self._facts(path) for path in paths}

    def _facts(self, path: str) -> InterpreterFacts:
        known = self._paths.get(path)
        if known is None or not known.answered or known.hangs:
            return _UNANSWERED
        return known.facts

    def unchanged(self, path: str) -> bool:
        """Return True if no event that has been read concerns the file since it was looked at."""
        known = self._paths.get(path)
        return known is not None and known.current

    def same(self, path: str) -> bool:
        """Return True if the file, looked at now, is the one that the facts are about.

        For a caller that does not read events at the moment.  If the file is another one, or does not answer in time
        (20 ms, and 20 ms for the thread to begin), return False and mark the path as out of date.
        """
        known = self._paths.get(path)
        there = self._fingerprints.call(path, lambda: file_identity(path), otherwise=None)
        same = known is not None and there is not None and there == known.facts.file_identity
        if not same:
            self.changed([path])
        return same

    def can_run(self, path: str) -> bool:
        """Return True if a foreign entry's interpreter exists, or if that is not known yet.

        The next ``keep`` includes the path.
        """
        self._foreign.add(path)
        known = self._paths.get(path)
        return known is None or not known.answered or known.facts.file_identity is not None

    def read_head(self, path: str) -> bytes:
        """Return the first 256 bytes of an interpreter, or those of our own program if it does not answer in time.

        So an entry that takes native programs and whose interpreter hangs counts as one that stops every exec: it does.
        """
        return self._heads.call(path, lambda: read_head(path), otherwise=self._own_head)

    # The looks

    @property
    def due_at(self) -> float:
        """The time of the next ``step`` (monotonic, in seconds), for a path that does not answer."""
        hangs_at = min((self._paths[path].began for path in self._late), default=float("inf")) + HANGS
        return min(self._step_at, hangs_at)

    @property
    def looking(self) -> bool:
        """True if a batch has not ended yet."""
        return bool(self._batches)

    @property
    def at_work(self) -> bool:
        """True if a thread looks at a file, even one that hangs."""
        return bool(self._batches or self._threads)

    @property
    def out_of_date(self) -> bool:
        """True if ``look`` has anything to do."""
        if time.monotonic() < self._again_at:
            return False
        return any(not known.current and not known.looking for known in self._paths.values())

    def keep(self, declared: Iterable[str]) -> None:
        """Keep these paths, and those of foreign entries that were asked for since the last call; forget all others."""
        wanted = {*declared, *self._foreign}
        self._foreign = set()
        for path in self._paths.keys() - wanted:
            del self._paths[path]
            self._late.discard(path)
            self._watch.use(path, Armed())
        for path in wanted - self._paths.keys():
            self._paths[path] = _Path()

    def changed(self, paths: Iterable[str] | None = None) -> None:
        """Mark these paths as out of date (None: all of them)."""
        for path in self._paths.keys() if paths is None else paths:
            if (known := self._paths.get(path)) is not None:
                known.changes += 1

    def doubt(self, paths: Iterable[str]) -> None:
        """Look again at paths whose file the kernel could not open in time."""
        self.changed(paths)
        self.look()

    def look(self, *, everything: bool = False, patience: float = 0.0) -> None:
        """Begin a look at the paths that are out of date, or at ``everything``; the last facts stay in use.

        ``patience``: seconds that the end of the look waits for a path that does not answer.  Passes and other looks
        wait for that end, too.
        """
        idle = ((path, known) for path, known in self._paths.items() if not known.looking)
        paths = [path for path, known in idle if everything or not known.current]
        if not paths:
            return
        now = time.monotonic()
        batch = _Batch({path: self._paths[path] for path in paths}, now + patience)
        for path in paths:
            known = self._paths[path]
            known.looking, known.began, known.asked = True, now, known.changes
        self._batches.append(batch)
        self._remote_devices = None
        self._step_at = min(self._step_at, now + PATIENCE)
        self._start(batch)

    def step(self, now: float) -> None:
        """Do what is due because a path does not answer.

        Another thread takes the rest of its batch, or the batch ends if nothing is left to take; a second after the
        look began, the path's last facts are no longer used.
        """
        self._stop_using_facts(now)
        if now < self._step_at:
            return
        self._step_at = float("inf")
        if not self._batches:
            self.look()  # at the paths that no thread has taken
        for batch in list(self._batches):
            self._collect(batch)
            if batch not in self._batches:
                continue
            slow, batch.left = len(batch.open) == batch.left, len(batch.open)
            if not slow or (batch.queue and self._start(batch)) or now < batch.patient_until:
                self._step_at = now + PATIENCE
            else:
                self._give_back(batch, now)
                self._end(batch)

    def wait(self) -> None:
        """Wait until no batch is open.  For the daemon's start only."""
        while self._batches:
            self._background.wait(PATIENCE)
            self._background.deliver()
            self.step(time.monotonic())

    def _stop_using_facts(self, now: float) -> None:
        """Stop using the facts about paths that have not answered for a second."""
        hanging = {path for path in self._late if now >= self._paths[path].began + HANGS}
        if not hanging:
            return
        self._late -= hanging
        for path in hanging:
            self._paths[path].hangs = True
        self._news = True
        if not self._batches:
            self._report_looked()

    def _start(self, batch: _Batch) -> bool:
        """Start one more thread; return False if 64 exist, or the kernel refuses one."""
        started = self._threads < THREADS and self._background.thread(lambda: self._work(batch))
        self._threads += started
        return started

    def _work(self, batch: _Batch) -> None:
        """Look at one path of the batch after the other.  Runs in a thread."""
        while True:
            try:
                path = batch.queue.popleft()
            except IndexError:
                break
            batch.answers.append((path, self._answer(path)))
            if path not in batch.open:
                self._background.post(lambda: self._collect(batch))
        self._background.post(lambda: self._collect(batch))
        self._background.post(self._thread_ended)

    def _answer(self, path: str) -> Answer:
        armed = self._watch.arm_all(lambda: watched([path]))
        devices = self._remote_devices
        if devices is None:
            devices = self._remote_devices = remote_devices()
        return Answer(look_at([path], self._trust, devices)[path], armed)

    def _thread_ended(self) -> None:
        self._threads -= 1

    def _collect(self, batch: _Batch) -> None:
        """Take in the answers of a batch that are there; the batch may have ended."""
        late = batch not in self._batches
        news = False
        unwatched: list[str] = []
        answers = len(batch.answers)
        for _ in range(answers):
            path, answer = batch.answers.popleft()
            batch.open.discard(path)
            known = batch.paths[path]
            if known is not self._paths.get(path):
                continue  # forgotten, or kept again since: then another look has begun, or comes
            news |= known.hangs or not known.answered or known.facts != answer.facts
            self.caught_up |= known.seen != known.asked
            known.facts, known.answered, known.looking, known.seen = answer.facts, True, False, known.asked
            known.hangs = False
            self._late.discard(path)
            if self._watch.use(path, answer.armed):
                known.changes += 1  # perhaps since it was looked at
            unwatched += answer.armed.unwatched
        self._news |= news
        if unwatched:
            self._report_unwatched(sorted(set(unwatched)))
        if late:
            if answers and not self._batches:
                self._report_looked()
        elif not batch.open:
            self._end(batch)

    def _give_back(self, batch: _Batch, now: float) -> None:
        """Put off the paths that no thread has taken for a second."""
        while True:
            try:
                path = batch.queue.popleft()
            except IndexError:
                return
            self._again_at = now + _AGAIN
            batch.open.discard(path)
            batch.paths[path].looking = False

    def _end(self, batch: _Batch) -> None:
        self._batches.remove(batch)
        self._late.update(path for path in batch.open if batch.paths[path] is self._paths.get(path))
        batch.open.clear()
        if not self._batches:
            self._step_at = self._again_at if self._again_at > time.monotonic() else float("inf")
            self._report_looked()

    def _report_looked(self) -> None:
        news, self._news = self._news, False
        self._looked(news)
        self.caught_up = False
