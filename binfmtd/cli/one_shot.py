"""One visit to an instance, without being the daemon: what ``apply`` and the drop-ins share.

Beside a running daemon of the same state directory nothing is written: its config is what counts.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from binfmtd.cli.context import reconciler
from binfmtd.cli.output import warn
from binfmtd.cli.trial import look_and_try
from binfmtd.daemon.look import Look, PassResult
from binfmtd.daemon.reconcile import Reconciler
from binfmtd.daemon.state_dir import APPLY, Lock, is_holder, make_state_dir
from binfmtd.errors import AlreadyRunningError, SealError, StateError
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.lifetime import find_or_mount_to_last, hold
from binfmtd.kernel.mount import Mounted, Where, find_to_look, is_mounted
from binfmtd.kernel.seal import Seal
from binfmtd.kernel.write import Writer
from binfmtd.model.config import Config
from binfmtd.model.drift import Action, Drift, Record
from binfmtd.report.status_json import read_status


class Visit(NamedTuple):
    """An opened instance, what is wanted there, and who is in charge of it."""

    reconciler: Reconciler
    instance: Instance
    daemon: int | None = None  # the process id of the daemon that is in charge (0: unknown); None: we are
    mounted: tuple[str, ...] = ()  # where this visit has mounted binfmt_misc
    seal: Seal | None = None  # to write through
    opened: bool = False  # this visit has opened a sealed instance

    @property
    def writes(self) -> bool:
        """Whether entries can be changed: no daemon is in charge, and the instance is not sealed."""
        return self.daemon is None and not self.instance.mounted.sealed

    def look(self) -> Look:
        """What is there, and what would have to be done."""
        return self.reconciler.look(self.instance)

    def converge(self, allow: Callable[[Action], bool] = lambda _: True) -> PassResult:
        """Make a pass, as far as ``allow`` lets it; beside a daemon only look.  Raises WriteRefusedError.

        What looks as wanted and somebody else registered is tried first, and left if it is as good as ours.
        """
        if self.daemon is not None:
            return PassResult(self.look())
        look_and_try(self.reconciler, self.instance)
        # A daemon that ended may have left stand-ins: one that would run an older emulator is replaced, none is made.
        return self.reconciler.make_pass(self.instance, self._writer(), allow=allow, keeps=_is_there)

    def remove(self, names: Collection[str]) -> list[str]:
        """Remove these entries, whoever owns them; returns those that were there.  Beside a daemon: none.

        Raises WriteRefusedError.
        """
        if self.daemon is not None:
            return []
        return self.reconciler.remove(names, self._writer())

    def renew(self, names: Collection[str]) -> None:
        """Have the next ``converge`` register these anew, without a gap: what F opened counts as unknown."""
        there = self.look().observed.by_name
        for name in names:
            if (entry := there.get(name)) is not None and entry.registration is not None:
                self.reconciler.ledger.records[name] = Record(entry.registration, entry.inode)

    def _writer(self) -> Writer:
        return Writer(self.instance, seal=self.seal)


@contextmanager
def visit(config: Config, directory: str, where: Where, held: str | None = None) -> Iterator[Visit]:
    """Go there; ``directory`` is the state directory, and ``held`` is where to mount the instance as well.

    Raises MountError (also where all that is registered would vanish when we end) and StateError.
    """
    make_state_dir(directory)
    try:
        lock = Lock(directory, APPLY)
    except AlreadyRunningError as running:
        with Instance(find_to_look(where.directory)) as instance:
            yield Visit(reconciler(config, directory, writes=False, beside_daemon=True), instance, running.pid)
        return
    try:
        was_there = is_mounted(where.directory)
        found = find_or_mount_to_last(where)
        mounted: tuple[str, ...] = () if was_there else (found.directory,)
        if held is not None and hold(held, where):
            mounted += (held,)
        found, seal = _through_seal(found, config.policy.sealed)
        try:
            with Instance(found) as instance:
                opened = config.policy.sealed is False and seal is not None
                yield Visit(reconciler(config, directory), instance, None, mounted, seal, opened)
        finally:
            if seal is not None:
                seal.release()
    finally:
        lock.release()


def _through_seal(found: Mounted, sealed: bool | None) -> tuple[Mounted, Seal | None]:  # noqa: FBT001
    """Open a sealed instance if the config says so; or write through its seal, if it is to stay sealed.

    Where that cannot be done the instance is left as it is: each write is refused, and says so.
    """
    if not found.sealed or sealed is None:
        return found, None
    seal = None
    try:
        seal = Seal(found)
        if sealed:
            seal.close()
        else:
            seal.open()
    except SealError as error:
        if seal is not None:
            seal.release()
        warn(str(error))
        return found, None
    return found._replace(read_only=False, sealed=False, mount_read_only=False), seal


def refused_beside(pid: int, directory: str, wish: str) -> str:
    """Why nothing was written, and what to do: ``wish`` says what is to be changed in the daemon's config."""
    try:
        path = read_status(directory)["config"]["path"]
    except StateError:
        path = "its config"
    reload = f"run `binfmtd reload --state-dir {directory}`"
    if not is_holder(pid, directory):
        reload = "run `binfmtd reload` in the daemon's container"
    return (
        f"nothing was written: a daemon keeps this instance (pid {pid or 'unknown'}, state directory {directory}) as "
        f"its own config says: {wish} in {path}, then {reload}"
    )


def more_architectures(words: Iterable[str]) -> str:
    """Return the change to a daemon's config that declares these architectures as well."""
    return "add " + ", ".join(f'"{word}"' for word in words) + " to `architectures`"


def _is_there(_: str, drift: Drift) -> bool:
    """Tell if a permanent stand-in exists: a single pass repairs those that do, and registers no missing one."""
    return drift is not Drift.MISSING
