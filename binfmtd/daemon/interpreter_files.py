"""The interpreters' files as the daemon knows them: looked at by threads, watched by inotify.

A file system that does not answer (NFS without its server, a FUSE process that hangs) stops each stat(2) on it.  So the
loop never looks at a file: it uses the last facts, and an inotify event marks those of its paths as out of date.

* A look at some paths is one batch.  A thread takes one path after the other.  If a path does not answer within 50 ms,
  another thread takes the rest, and the batch ends without that path; its answer is taken in when it comes.
* If 64 threads hang, or the kernel refuses another, the batch ends without the paths that no thread has taken.  They
  keep their facts, and are looked at a second later.
* A path that is out of date keeps its facts, but F does not open its file before it has been looked at again.
* Each look first watches every directory that decides where the path leads, then walks the path: so no change falls
  between.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from binfmtd.daemon.background import Background
from binfmtd.daemon.watch import Armed, Watch
from binfmtd.files.chain import walk
from binfmtd.files.trust import Trust
from binfmtd.kernel.bounded import BoundedCalls
from binfmtd.kernel.interpreters import fingerprint, head, look_at, watched
from binfmtd.kernel.mount import remote_devices
from binfmtd.model.desired import InterpreterFacts

PATIENCE = 0.05  # seconds that a path has for its answer
_SHORT = 0.02  # the same where the loop waits for it
THREADS = 64  # at most, hanging ones included
_AGAIN = 1.0  # seconds until paths are looked at for which no thread was left
_UNKNOWN = InterpreterFacts()
_UNANSWERED = InterpreterFacts(problem="its file system does not answer")


class Answer(NamedTuple):
    """The result of a look: the facts, and what to watch."""

    facts: InterpreterFacts
    armed: Armed


class _Path:
    """What is known of one path."""

    __slots__ = ("answered", "asked", "changes", "facts", "looking", "seen")

    def __init__(self) -> None:
        self.facts = _UNKNOWN
        self.answered = False
        self.looking = False
        self.changes = 0  # events, and other reasons to look again
        self.asked = -1  # ``changes`` when the last look began
        self.seen = -1  # ``changes`` when the look began that had the last answer

    @property
    def current(self) -> bool:
        return self.seen == self.changes


class _Batch:
    def __init__(self, paths: Iterable[str]) -> None:
        self.queue = deque(paths)
        self.open = set(self.queue)  # paths without an answer
        self.left = len(self.open)  # when ``step`` looked last
        self.answers: deque[tuple[str, Answer]] = deque()


class InterpreterFiles:
    """All paths that the config or a foreign entry names.

    ``due_at`` (monotonic, in seconds) is when ``step`` has to look after a batch that does not answer.
    """

    def __init__(
        self,
        background: Background,
        watch: Watch,
        looked: Callable[[bool], None],
        unwatched: Callable[[Collection[str]], None],
    ) -> None:
        """``looked`` is called when a batch has ended: True if any fact is another than before.

        ``unwatched`` gets directories that cannot be watched.
        """
        self.due_at = float("inf")
        self._background = background
        self._watch = watch
        self._looked = looked
        self._report_unwatched = unwatched
        self._trust = Trust.of_this_process()
        self._paths: dict[str, _Path] = {}
        self._foreign: set[str] = set()  # of foreign entries, asked for since ``keep``
        self._batches: list[_Batch] = []
        self._threads = 0
        self._again_at = float("-inf")  # when a thread is tried again for paths that none has taken
        self._unknown_events = watch.unknown
        self._remote_devices: frozenset[int] | None = None  # as they were when the last batch began
        self._heads = BoundedCalls(PATIENCE)
        self._fingerprints = BoundedCalls(_SHORT)
        self._own_head = head("/proc/self/exe")
        self._news = False  # facts have changed since ``looked`` was called

    # What is known

    def facts(self, paths: Collection[str]) -> Mapping[str, InterpreterFacts]:
        """Return the last facts about these paths; of one that does not answer now nothing is known."""
        return {path: self._facts(path) for path in paths}

    def _facts(self, path: str) -> InterpreterFacts:
        known = self._paths.get(path)
        if known is None or not known.answered or (known.looking and not self._is_open(path)):
            return _UNANSWERED
        return known.facts

    def unchanged(self, path: str) -> bool:
        """Tell if nothing has happened to the file since it was looked at, as far as events have been read."""
        known = self._paths.get(path)
        return known is not None and known.current

    def same(self, path: str) -> bool:
        """Tell the same by looking at the file: for a caller that does not read the events at the moment.

        False, and then it is out of date, also if the file does not answer within 20 ms.
        """
        known = self._paths.get(path)
        there = self._fingerprints.call(path, lambda: fingerprint(path), otherwise=None)
        same = known is not None and there is not None and there == known.facts.fingerprint
        if not same:
            self.changed([path])
        return same

    def can_run(self, path: str) -> bool:
        """Tell if a foreign entry's interpreter is there; true as long as that is not known."""
        self._foreign.add(path)
        known = self._paths.get(path)
        return known is None or not known.answered or known.facts.fingerprint is not None

    def head(self, path: str) -> bytes:
        """Return the first bytes of an interpreter; those of our own program if it does not answer within 50 ms.

        So an entry that takes native programs counts as one that stops every exec, as it does if its interpreter hangs.
        """
        return self._heads.call(path, lambda: head(path), otherwise=self._own_head)

    # What is looked at

    @property
    def looking(self) -> bool:
        """Tell if a batch has not ended yet."""
        return bool(self._batches)

    @property
    def at_work(self) -> bool:
        """Tell if any thread looks at a file, one that hangs included."""
        return bool(self._batches or self._threads)

    @property
    def out_of_date(self) -> bool:
        """Tell if ``look`` has anything to do."""
        if time.monotonic() < self._again_at:
            return False
        return any(not known.current and not known.looking for known in self._paths.values())

    def keep(self, declared: Iterable[str]) -> None:
        """Know these paths, and those of the foreign entries that were asked for; forget all others."""
        wanted = {*declared, *self._foreign}
        self._foreign = set()
        for path in self._paths.keys() - wanted:
            del self._paths[path]
            self._watch.use(path, {})
        for path in wanted - self._paths.keys():
            self._paths[path] = _Path()

    def changed(self, paths: Iterable[str] | None = None) -> None:
        """Take note that something happened to these paths (None: possibly to any)."""
        for path in self._paths.keys() if paths is None else paths:
            if (known := self._paths.get(path)) is not None:
                known.changes += 1

    def doubt(self, paths: Iterable[str]) -> None:
        """Look at paths whose file could not be opened in time."""
        self.changed(paths)
        self.look()

    def look(self, *, everything: bool = False) -> None:
        """Look at what is out of date, or at ``everything``: what is not known to have changed serves meanwhile."""
        idle = ((path, known) for path, known in self._paths.items() if not known.looking)
        paths = [path for path, known in idle if everything or not known.current]
        if not paths:
            return
        batch = _Batch(paths)
        for path in paths:
            self._paths[path].looking = True
            self._paths[path].asked = self._paths[path].changes
        self._batches.append(batch)
        self._remote_devices = None
        self.due_at = min(self.due_at, time.monotonic() + PATIENCE)
        self._start(batch)

    def step(self, now: float, *, patient: bool = False) -> None:
        """Have another thread take the rest of a batch that hangs; end the batch if nothing is left to take.

        Only time is spent on it if the caller is ``patient``.
        """
        if now < self.due_at:
            return
        self.due_at = float("inf")
        if not self._batches:
            self.look()  # what no thread has taken
        for batch in list(self._batches):
            self._collect(batch)
            if batch not in self._batches:
                continue
            slow, batch.left = len(batch.open) == batch.left, len(batch.open)
            if not slow or (batch.queue and self._start(batch)) or patient:
                self.due_at = now + PATIENCE
            else:
                self._give_back(batch, now)
                self._end(batch)

    def wait(self, seconds: float) -> None:
        """Wait until no batch is open, in the daemon's start; a path may take all of the time to answer."""
        end = time.monotonic() + seconds
        while self._batches:
            self._background.wait(PATIENCE)
            self._background.deliver()
            now = time.monotonic()
            self.step(now, patient=now < end)

    def _is_open(self, path: str) -> bool:
        return any(path in batch.open for batch in self._batches)

    def _start(self, batch: _Batch) -> bool:
        """Start one more thread; False if there is none left."""
        started = self._threads < THREADS and self._background.thread(lambda: self._work(batch))
        self._threads += started
        return started

    def _work(self, batch: _Batch) -> None:
        """Look at one path after the other, in a thread."""
        while True:
            try:
                path = batch.queue.popleft()
            except IndexError:
                break
            batch.answers.append((path, self._answer(path)))
            if not batch.queue or path not in batch.open:
                self._background.post(lambda: self._collect(batch))
        self._background.post(self._thread_ended)

    def _answer(self, path: str) -> Answer:
        armed = self._watch.arm_all(lambda: watched([path]))
        facts = look_at([path], self._trust)[path]
        devices = self._remote_devices
        if devices is None:
            devices = self._remote_devices = remote_devices()
        remote = any(step.stat is not None and step.stat.st_dev in devices for step in walk(path).steps)
        return Answer(facts._replace(remote=remote), armed)

    def _thread_ended(self) -> None:
        self._threads -= 1

    def _collect(self, batch: _Batch) -> None:
        """Take in the answers that are there, of a batch that may have ended."""
        late = batch not in self._batches
        news = False
        unwatched: list[str] = []
        for _ in range(len(batch.answers)):
            path, answer = batch.answers.popleft()
            batch.open.discard(path)
            known = self._paths.get(path)
            if known is None:
                continue
            news |= late or not known.answered or known.facts != answer.facts
            known.facts, known.answered, known.looking, known.seen = answer.facts, True, False, known.asked
            self._watch.use(path, answer.armed.names)
            unwatched += answer.armed.unwatched
        self._news |= news
        if unwatched:
            self._report_unwatched(sorted(set(unwatched)))
        if late:
            if news:
                self._tell()
        elif not batch.open:
            self._end(batch)

    def _give_back(self, batch: _Batch, now: float) -> None:
        """Have the paths that no thread has taken looked at in a while."""
        while True:
            try:
                path = batch.queue.popleft()
            except IndexError:
                return
            self._again_at = now + _AGAIN
            batch.open.discard(path)
            if (known := self._paths.get(path)) is not None:
                known.looking = False

    def _end(self, batch: _Batch) -> None:
        self._batches.remove(batch)
        self._news |= bool(batch.open)  # what does not answer is no longer waited for
        batch.open.clear()
        if self._unknown_events != self._watch.unknown:  # of directories that were not in use yet
            self._unknown_events = self._watch.unknown
            self.changed()
        if not self._batches:
            self.due_at = self._again_at if self._again_at > time.monotonic() else float("inf")
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, False
        self._looked(news)
