"""The watches on files in the state directory: the lock, and paused.json and probed.json, which commands write.

Another program may remove the directory, and the lock with it.  The thread that writes our own files makes it again,
and then the watches are armed anew, since it is another directory.  Each look without an event arms watches for which
the kernel had none left.
"""

from functools import partial

from binfmtd.daemon.background import Background
from binfmtd.daemon.interpreters.probe_runner import ProbeRunner
from binfmtd.daemon.pause_control import PauseControl
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.state_files.pause_file import PauseFile
from binfmtd.daemon.state_files.state_dir import Lock
from binfmtd.daemon.state_files.state_writer import Written
from binfmtd.daemon.watches.armed import Armed
from binfmtd.daemon.watches.events import WatchKind
from binfmtd.daemon.watches.inotify import InotifyWatcher

_KEY = "state directory's watches"  # of the work in the background


class StateWatch:
    """The watches, and what follows when the state directory is another one."""

    def __init__(
        self,
        background: Background,
        watch: InotifyWatcher,
        lock: Lock,
        file: PauseFile,
        pauses: PauseControl,
        probe_runner: ProbeRunner,
        report: Reporter,
    ) -> None:
        self._background = background
        self._watch = watch
        self._files = {
            WatchKind.LOCK: lock.watched,
            WatchKind.PAUSES: file.watched,
            WatchKind.PROBED: probe_runner.watched,
        }
        self._pauses = pauses
        self._probe_runner = probe_runner
        self._report = report

    @property
    def _incomplete(self) -> bool:
        """True if some watches are missing, since the kernel had none left."""
        return not self._watch.incomplete.isdisjoint(self._files)

    @property
    def arming(self) -> bool:
        """True if a thread is arming the watches, or is about to."""
        return self._background.busy(_KEY)

    def begin(self) -> None:
        """Arm the watches now, before the first pass."""
        self._use(self._arm())

    def retry(self) -> None:
        """Arm the watches again if some are missing, since the kernel had none left."""
        if self._incomplete and not self.arming:
            self._background.run(_KEY, self._arm, self._use)

    def written(self, written: Written) -> None:
        """Take in that our own files were written in the state directory."""
        self._report.state_written()
        if written.problem is not None:
            self._report.notices.state_dir_lost(written.problem)
        if written.made_again:
            self._report.notices.state_dir_made_again()
            self._background.run(_KEY, self._arm, self._use)
            self._take_in()  # the directory may contain pauses already

    def _take_in(self) -> None:
        self._pauses.read()
        self._probe_runner.take_in()

    def _arm(self) -> dict[WatchKind, Armed]:
        return {owner: self._watch.arm_all(partial(dict, files)) for owner, files in self._files.items()}

    def _use(self, files: dict[WatchKind, Armed]) -> None:
        before = self._incomplete
        changed = {owner for owner, armed in files.items() if self._watch.use(owner, armed)}
        for armed in files.values():
            self._report.notices.unwatched(armed.unwatched)
        if changed or (before and not self._incomplete):  # no event has reported what was written before
            self._take_in()
