"""binfmt_misc as a value: registering, enabling, removing and the order of entries, as docs/kernel.md has them."""

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping

from binfmtd.formats.register_line import decode_line
from binfmtd.kernel.writer import ENABLE, REMOVE, Wrote
from binfmtd.model.config import HandlerSpec
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Act, Action, Plan, Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Match
from binfmtd.model.plan import INSTANCE
from binfmtd.model.stand_in import stand_in_name
from support import Closing


def handler(name: str, match: Match, priority: int = 0, flags: Flags = Flags.NONE) -> Handler:
    return Handler(name, Registration(match, "/i", flags), priority)


def declared(handlers: Iterable[Handler]) -> tuple[HandlerSpec, ...]:
    """Return the declarations that lead to these handlers."""
    return tuple(
        HandlerSpec(
            handler.name,
            handler.registration.match,
            (handler.registration.interpreter,),
            handler.registration.flags,
            priority=handler.priority,
            enabled=handler.enabled,
        )
        for handler in handlers
    )


class SimulatedKernel:
    """One instance.  A new entry comes first, is enabled, and has a number that was never used before."""

    def __init__(self, entries: Iterable[Entry] = (), *, switched_on: bool = True) -> None:
        self.entries = list(entries)
        self.switched_on = switched_on
        self._last_inode = max((entry.inode for entry in self.entries), default=0)

    def observed(self) -> ObservedState:
        return ObservedState(tuple(self.entries), self.switched_on)

    def entry(self, name: str) -> Entry | None:
        return self.observed().by_name.get(name)

    def register(self, name: str, registration: Registration) -> Entry:
        """Raise FileExistsError if the name is taken, as the kernel gives EEXIST."""
        if self.entry(name) is not None:
            raise FileExistsError(17, "File exists", name)
        self._last_inode += 1
        entry = Entry(name, self._last_inode, enabled=True, registration=registration)
        self.entries.insert(0, entry)
        return entry

    def remove(self, name: str) -> None:
        """Raise LookupError if there is no such entry."""
        self.entries.pop(self._place(name))

    def switch(self, name: str, *, enabled: bool) -> None:
        """Enable or disable an entry, or the instance through ``status``; raises LookupError."""
        if name == INSTANCE:
            self.switched_on = enabled
            return
        place = self._place(name)
        old = self.entries[place]
        self.entries[place] = Entry(name, old.inode, enabled, old.registration)

    def _place(self, name: str) -> int:
        found = self.observed().position.get(name)
        if found is None:
            raise LookupError(name)
        return found


class Through(Closing):
    """Instance and Writer in one, on a simulated kernel; ``seen`` has the state after each write."""

    def __init__(self, kernel: SimulatedKernel, refuse: Collection[str] = (), created: int = 1) -> None:
        self.kernel = kernel
        self.refuse = refuse  # names whose registration the kernel refuses
        self.seen = [kernel.observed()]
        self._created = created

    def close(self) -> None: ...

    def entry(self, name: str) -> Entry | None:
        return self.kernel.entry(name)

    def created(self) -> int:
        return self._created

    def switched_on(self) -> bool:
        return self.kernel.switched_on

    def inode(self, name: str) -> int | None:
        entry = self.kernel.entry(name)
        return None if entry is None else entry.inode

    def inodes(self) -> list[tuple[str, int]]:
        return [(entry.name, entry.inode) for entry in self.kernel.entries]

    def files_in_slices(self) -> Iterator[list[tuple[str, int]]]:
        for listed in (*self.inodes(), ("register", 0), ("status", 0)):
            yield [listed]

    def newest_first(self) -> Iterator[tuple[str, int]]:
        return iter(self.inodes())

    def register(self, lines: Iterable[bytes], _: object = None) -> list[OSError | None]:
        outcome: list[OSError | None] = []
        for line in lines:
            name, registration = decode_line(line)
            if name in self.refuse:
                outcome.append(OSError(errno.ETXTBSY, os.strerror(errno.ETXTBSY)))
                continue
            try:
                self.kernel.register(name, registration)
                outcome.append(None)
            except FileExistsError as error:
                outcome.append(error)
            self.seen.append(self.kernel.observed())
        return outcome

    def take_wrote(self) -> list[Wrote]:
        return []

    def control(self, name: str, command: bytes) -> bool:
        try:
            if command == REMOVE:
                self.kernel.remove(name)
            else:
                self.kernel.switch(name, enabled=command == ENABLE)
        except LookupError:
            return False
        self.seen.append(self.kernel.observed())
        return True


class Gate:
    """Asks one function for each permission of a fast repair; by default it gives all."""

    def __init__(self, may: Callable[[str], bool] = lambda _: True) -> None:
        self.may_add_stand_in = self.may_switch = may


def carry_out(
    planned: Plan, kernel: SimulatedKernel, desired: DesiredState, records: MutableMapping[str, Record]
) -> None:
    """Carry out a plan in its order, without avoiding gaps, and update the records as the daemon does."""
    for action in planned.stand_ins:
        if action.act is Act.ENABLE:
            kernel.switch(action.entry, enabled=True)
        else:
            _register(action, kernel, desired, records)
    for action in planned.actions:
        if action.act in (Act.ENABLE, Act.DISABLE):
            kernel.switch(action.entry, enabled=action.act is Act.ENABLE)
        elif action.act is Act.REMOVE:
            kernel.remove(action.entry)
            records.pop(action.entry, None)
        elif action.act is Act.RESTORE:
            assert action.handler is not None
            kernel.register(action.entry, action.handler.registration)
            kernel.switch(action.entry, enabled=action.handler.enabled)
        else:
            _register(action, kernel, desired, records)


def _register(
    action: Action, kernel: SimulatedKernel, desired: DesiredState, records: MutableMapping[str, Record]
) -> None:
    assert action.handler is not None
    wanted = action.handler.registration
    if action.act is Act.REPLACE:
        kernel.remove(action.entry)
    entry = kernel.register(action.entry, wanted)
    if kernel.entry(stand_in_name(action.entry)) is not None and action.entry not in desired.permanent:
        kernel.remove(stand_in_name(action.entry))
    opened_file = desired.file_identities[wanted.interpreter] if Flags.F in wanted.flags else None
    records[action.entry] = Record(wanted, entry.inode, opened_file)
