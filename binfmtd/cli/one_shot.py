"""A command's visit to an instance: open it, make passes over it, and leave it.  ``apply`` and the drop-ins share it.

While a daemon runs with the same state directory nothing is written, because the daemon's config decides.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from shlex import quote
from typing import NamedTuple

from binfmtd.cli.context import reconciler
from binfmtd.cli.output import warn
from binfmtd.cli.trial import look_and_try
from binfmtd.daemon.assessment import Assessment, ReconcileResult
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.state_files.pause_file import PauseFile
from binfmtd.daemon.state_files.state_dir import APPLY, Lock, is_holder, make_state_dir
from binfmtd.errors import AlreadyRunningError, SealError, StateError
from binfmtd.host.facts import boot_id
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.lifetime import find_or_mount_to_last, hold
from binfmtd.kernel.mount import Mounted, Where, find_to_look, is_mounted
from binfmtd.kernel.seal import Seal
from binfmtd.kernel.write_gate import WriteGate
from binfmtd.kernel.writer import Writer
from binfmtd.model.config import Config
from binfmtd.model.drift import Act, Action, Drift, Record
from binfmtd.model.ownership import equal
from binfmtd.model.pause import EVERYTHING
from binfmtd.model.stand_in import stand_in_name
from binfmtd.report.status_json import read_status

_ARCHITECTURES = "`architectures`"


class Visit(NamedTuple):
    """An opened instance, the reconciler for what is wanted there, and the daemon that manages it, if one does."""

    reconciler: Reconciler
    instance: Instance
    daemon: int | None = None  # the process id of the daemon that manages it (0: unknown); None: no daemon does
    mounted: tuple[str, ...] = ()  # where this visit has mounted binfmt_misc
    seal: Seal | None = None  # of a sealed instance, to write through it
    opened: bool = False  # this visit has opened a sealed instance

    @property
    def writes(self) -> bool:
        """True if entries can be changed: no daemon manages the instance, and it is not sealed."""
        return self.daemon is None and not self.instance.mounted.sealed

    def assess(self) -> Assessment:
        """Observe the instance and plan, without a write."""
        return self.reconciler.assess(self.instance)

    def converge(self, allow: Callable[[Action], bool] = lambda _: True) -> ReconcileResult:
        """Make a pass with the actions that ``allow`` accepts; beside a daemon only look.  Raises WriteRefusedError.

        An entry that looks as wanted but is not in the ledger is tried first; it stays if it runs the same emulator.
        """
        if self.daemon is not None:
            return ReconcileResult(self.assess())
        look_and_try(self.reconciler, self.instance)
        # A daemon that ended may have left stand-ins: one with an older emulator is replaced, and none is added.
        before = {name for name, _ in self.instance.inodes()}
        result = self.reconciler.reconcile(self.instance, self._writer(), gate=_Gate(allow))
        served = {stand_in_name(action.entry) for action in result.done if action.act is Act.REPLACE}
        if added := served - before:  # they served while their entries were replaced
            self.reconciler.remove(added, self._writer())
        return result

    def remove(self, names: Collection[str]) -> list[str]:
        """Remove these entries, also foreign ones; return those that existed.  Beside a daemon, remove none.

        Raises WriteRefusedError.
        """
        if self.daemon is not None:
            return []
        return self.reconciler.remove(names, self._writer())

    def renew(self, names: Collection[str]) -> None:
        """Make the next ``converge`` register these again, without a gap: the file that F opened counts as unknown.

        An entry that differs from its handler is registered again in any case, and may be one that no line can express.
        """
        here = self.assess()
        for name in names:
            entry, handler = here.observed.by_name.get(name), here.desired.by_name.get(name)
            if entry is not None and handler is not None and equal(entry.registration, handler.registration):
                self.reconciler.ledger.records[name] = Record(handler.registration, entry.inode)

    def _writer(self) -> Writer:
        return Writer(self.instance, seal=self.seal)


@contextmanager
def visit(config: Config, directory: str, where: Where, held: str | None = None) -> Iterator[Visit]:
    """Open the instance, and mount it if necessary; ``directory`` is the state directory.

    ``held`` is a second directory where it is mounted as well, also beside a daemon.  Raises StateError, and
    MountError, also where all that is registered would vanish when this process ends.
    """
    make_state_dir(directory)
    mounted: tuple[str, ...] = ()
    try:
        lock = Lock(directory, APPLY)
    except AlreadyRunningError as running:
        if held is not None and hold(held, where):
            mounted = (held,)
        with Instance(find_to_look(where.directory)) as instance:
            yield Visit(reconciler(config, directory, writes=False, beside_daemon=True), instance, running.pid, mounted)
        return
    try:
        was_there = is_mounted(where.directory)
        mount = find_or_mount_to_last(where)
        if not was_there:
            mounted = (mount.directory,)
        if held is not None and hold(held, where):
            mounted += (held,)
        mount, seal = _through_seal(mount, config.policy.sealed)
        try:
            with Instance(mount) as instance:
                opened = config.policy.sealed is False and seal is not None
                yield Visit(reconciler(config, directory), instance, None, mounted, seal, opened)
        finally:
            if seal is not None:
                seal.release()
    finally:
        lock.release()


def _through_seal(mounted: Mounted, sealed: bool | None) -> tuple[Mounted, Seal | None]:  # noqa: FBT001
    """Open a sealed instance if ``sealed`` is False; write through its seal if it is True; None: leave it alone.

    Where that cannot be done, warn and leave the instance as it is: the kernel then refuses each write.
    """
    if not mounted.sealed or sealed is None:
        return mounted, None
    seal = None
    try:
        seal = Seal(mounted)
        if sealed:
            seal.close()
        else:
            seal.open()
    except SealError as error:
        if seal is not None:
            seal.release()
        warn(str(error))
        return mounted, None
    return mounted._replace(read_only=False, sealed=False, mount_read_only=False), seal


def refused_beside(
    pid: int, directory: str, wish: str, entries: Collection[str], *, by_hand: str = "", config: str | None = None
) -> str:
    """Return why nothing was written, and what to do.

    ``wish`` is the change that the daemon's config needs ("": none), and ``entries`` are the names that it concerns.
    ``by_hand`` is what to do where no change of the config helps.  ``config`` is the path of the config that asks for
    all this, if a config does: if the daemon has the same one, it only has to read it again.
    """
    path, given = "its config", None
    with suppress(StateError):
        read = read_status(directory)["config"]
        path, given = read["path"], read.get("architectures")
    change = f"{wish} in {path}"
    reload = f"run `binfmtd reload --state-dir {directory}`"
    if not is_holder(pid, directory):
        reload = "run `binfmtd reload` in the daemon's container"
    if given is not None and _ARCHITECTURES in wish:  # `binfmtd reload` does not change these
        own = f"the daemon's --arch or $BINFMTD_ARCH (now {' '.join(given) or 'none'})"
        change, reload = wish.replace(_ARCHITECTURES, own), "restart the daemon"
    elif given is None and path == config and is_holder(pid, directory):
        change = f"if {path} was changed after the daemon had read it"
    reason = (
        f"nothing was written: a daemon (pid {pid or 'unknown'}, state directory {directory}) manages this instance by "
        "its own config"
    )
    if remedies := "; ".join(filter(None, [f"{change}, then {reload}" if wish else "", by_hand])):
        reason += f": {remedies}"
    until = PauseFile(directory, boot_id()).read().until
    if paused := [name for name in until if name == EVERYTHING or name in entries]:
        names = "" if EVERYTHING in paused else " " + " ".join(map(quote, sorted(paused)))
        reason += (
            f". An administrator has paused its repairs, too: `binfmtd resume --state-dir {directory}{names}` ends that"
        )
    return reason


def more_architectures(words: Iterable[str]) -> str:
    """Return the change to a daemon's config that declares these architectures as well."""
    return "add " + ", ".join(f'"{word}"' for word in words) + f" to {_ARCHITECTURES}"


class _Gate(WriteGate):
    """Allows the actions that a command accepts, at once."""

    def __init__(self, allow: Callable[[Action], bool]) -> None:
        self._allow = allow

    def considers(self, action: Action) -> bool:
        return self._allow(action)

    def may_keep(self, _: str, drift: Drift) -> bool:
        """A single pass repairs the permanent stand-ins that exist, and registers no missing one."""
        return drift is not Drift.MISSING
