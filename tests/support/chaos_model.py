"""The chaos test's own model: the entries that an instance should have after any sequence of actions.

It uses none of binfmtd's decisions, no events and no order of events.  Its input is: the declared handlers, the
interpreters that exist, the entries that other programs registered, and the entries when it was quiet last.

* An enabled handler whose interpreter exists has its entry as declared.  The entry of any other handler stays as it was
  found, with two exceptions.  If the interpreter is missing, or another user can change it, an entry without F that
  leads to it goes.  If the config has ``enabled = false``, the entry is disabled.
* An entry that another program registered under an undeclared name stays, with its number and text, unless
  ``unmanaged`` removes it.  An entry that the daemon registered under such a name goes.
* An entry that ``restore`` names comes back after a flush, as it was.
* The newest entry takes a program.  Of declared entries that is the one with the higher priority, then the one declared
  later.
"""

import errno
import os
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from binfmtd.model.stand_in import stand_in_name

Match = str | frozenset[tuple[int, int, int]]  # an extension, or (place, mask, byte) for each byte that matters

ANY_NEW_NAME = ""  # in ``fickle``: the daemon may still apply the old policy to it


@dataclass(frozen=True)
class Kind:
    """A match as a registration has it: magic, mask and offset, or an extension."""

    magic: bytes = b""
    mask: bytes = b""
    offset: int = 0
    extension: str = ""

    @property
    def match(self) -> Match:
        mask = self.mask or b"\xff" * len(self.magic)
        pairs = zip(mask, self.magic, strict=True)
        places = frozenset((place, m, byte & m) for place, (m, byte) in enumerate(pairs, self.offset) if m)
        return self.extension or places


def takes(match: Match, file_name: str, content: bytes) -> bool:
    if isinstance(match, str):
        return file_name.endswith("." + match)
    head = content.ljust(256, b"\0")
    return all(head[place] & mask == byte for place, mask, byte in match)


@dataclass(frozen=True)
class Handler:
    """The declaration of one name."""

    kind: Kind
    interpreter: str
    flags: str = ""
    priority: int = 0
    enabled: bool = True


@dataclass(frozen=True)
class Entry:
    """An entry of the kernel; ``inode`` 0 stands for any number."""

    inode: int
    enabled: bool
    interpreter: str
    flags: str
    match: Match

    @classmethod
    def parse(cls, inode: int, text: str) -> "Entry":
        first, *lines = text.splitlines()
        found = dict(line.split(" ", 1) for line in lines)
        kind = Kind(
            bytes.fromhex(found.get("magic", "")),
            bytes.fromhex(found.get("mask", "")),
            int(found.get("offset", 0)),
            found.get("extension", "").removeprefix("."),
        )
        return cls(inode, first == "enabled", found["interpreter"], found["flags:"], kind.match)

    def does(self, handler: Handler) -> bool:
        """Return True if interpreter, flags and match are those of the handler."""
        wanted = (handler.interpreter, handler.flags, handler.kind.match)
        return (self.interpreter, self.flags, self.match) == wanted

    @classmethod
    def of(cls, handler: Handler) -> "Entry":
        return cls(0, handler.enabled, handler.interpreter, handler.flags, handler.kind.match)


@dataclass(frozen=True)
class Policy:
    unmanaged: str = "keep"
    keep: tuple[str, ...] = ()
    restore: tuple[str, ...] = ("WSL*",)
    shadowed: str = "report"
    on_stop: str = "keep"
    settle: str = "20ms"
    stand_ins: str = "permanent"

    def restores(self, name: str) -> bool:
        return any(fnmatchcase(name, glob) for glob in self.restore)

    def spares(self, name: str) -> bool:
        return self.unmanaged == "keep" or any(fnmatchcase(name, glob) for glob in (*self.keep, *self.restore))


@dataclass(frozen=True)
class Interpreter:
    """The program at a path: it exits with ``status``; ``state`` is ``good``, ``absent`` or ``untrusted``.

    ``error`` is the text of the error of execve(2) while it is absent, for entries that have not opened it before.
    """

    status: int
    state: str = "good"
    error: str = ""


@dataclass(frozen=True)
class Seen:
    """A snapshot of the entries, newest first, and of the daemon's state files."""

    entries: dict[str, Entry]
    switched_on: bool
    status: dict[str, Any]
    ledger: dict[str, Any]
    foreign_entries: dict[str, Any]  # name -> record
    files: dict[str, list[int] | None]  # path of an interpreter -> fingerprint
    stand_ins: dict[str, Entry]
    listed: tuple[str, ...]  # the names of all entries and stand-ins, newest first

    def text(self) -> str:
        """Return all entries and stand-ins, newest first, in words."""
        return "; ".join(f"{name}: {self.entries.get(name) or self.stand_ins.get(name)}" for name in self.listed)


@dataclass
class Model:
    """The actions so far, reduced to their effect.

    ``fickle`` are the names whose state depends on how much the daemon has noticed so far.  The test does nothing more
    to them before the daemon is quiet.
    """

    handlers: dict[str, Handler]
    policy: Policy
    interpreters: dict[str, Interpreter]
    standing: dict[str, Entry] = field(default_factory=dict)
    theirs: set[int] = field(default_factory=set)  # inode numbers of the entries that other programs registered
    lost: dict[str, Entry] = field(default_factory=dict)  # entries that the daemon has to restore
    opened_file: dict[int, int] = field(default_factory=dict)  # number -> status of the program that F opened
    fickle: set[str] = field(default_factory=set)
    new: set[int] = field(default_factory=set)  # those of ``theirs`` since it was quiet
    was_killed: bool = False  # since it was quiet

    # Actions

    def put(self, name: str, entry: Entry) -> None:
        """Record that another program registered an entry."""
        self.lost.pop(name, None)
        self.standing[name] = entry
        self.theirs.add(entry.inode)
        self.new.add(entry.inode)
        if known := self.interpreters.get(entry.interpreter):
            self.opened_file[entry.inode] = known.status
        if name not in self.handlers and self.policy.restores(name):
            self.fickle.add(name)  # has to be seen before it can come back

    def removed(self, name: str) -> None:
        self.standing.pop(name, None)
        self.lost.pop(name, None)

    def switched(self, name: str, *, enabled: bool) -> None:
        """Record that another program enabled or disabled an entry."""
        if name in self.standing:
            self.standing[name] = replace(self.standing[name], enabled=enabled)
            if self.policy.restores(name):
                self.fickle.add(name)

    def flushed(self) -> None:
        """Record that all entries are gone, by a flush or with the instance."""
        for name, entry in self.standing.items():
            if name not in self.handlers and entry.inode in self.theirs and self.policy.restores(name):
                self.lost[name] = replace(entry, inode=0)
        self.standing.clear()

    def declared(self, handlers: dict[str, Handler], policy: Policy) -> None:
        """Record that another config is in force."""
        old = dict(self.handlers)
        before = {name for name in old if self.must_stand(name)}
        if policy != self.policy:
            self.fickle |= (self.standing.keys() - old.keys()) | {ANY_NEW_NAME}
        self.handlers, self.policy = handlers, policy
        after = {name for name in handlers if self.must_stand(name)}
        self.fickle |= (old.keys() | handlers.keys()) - (before & after)
        self.lost = {name: was for name, was in self.lost.items() if name not in handlers and policy.restores(name)}

    def changed(self, path: str, interpreter: Interpreter) -> None:
        """Record another program, or another state of it, at the path."""
        if self.interpreters[path].state != interpreter.state:
            self.fickle |= {name for name, handler in self.handlers.items() if handler.interpreter == path}
        self.interpreters[path] = interpreter

    def killed(self) -> None:
        """Record that the daemon was killed.

        The next daemon cannot know who registered an entry that the killed one had not recorded.  It counts as its own
        an entry that is as the killed daemon would have registered it.
        """
        self.was_killed = True

    def stopped(self) -> None:
        """Record that the daemon ended by SIGTERM: with ``on_stop = "remove"`` it has removed its entries."""
        if self.policy.on_stop == "remove":
            for name, entry in list(self.standing.items()):
                as_declared = self.must_stand(name) and entry.does(self.handlers[name])
                if as_declared or entry.inode not in self.theirs:
                    del self.standing[name]

    # The expected state

    def state(self, name: str) -> str:
        return self.interpreters[self.handlers[name].interpreter].state

    def must_stand(self, name: str) -> bool:
        return name in self.handlers and self.handlers[name].enabled and self.state(name) == "good"

    def expected(self) -> dict[str, Entry]:
        found = {name: Entry.of(self.handlers[name]) for name in self.handlers if self.must_stand(name)} | self.lost
        left = {name: entry for name, entry in self.standing.items() if name not in found and self.stays(name, entry)}
        return found | {name: self._left(name, entry) for name, entry in left.items()}

    def _left(self, name: str, entry: Entry) -> Entry:
        """Return an entry as it was found, but disabled if the config disables it.

        The number of an entry of the daemon's is 0, since it may have been registered anew before.
        """
        switched_off = name in self.handlers and not self.handlers[name].enabled
        number = entry.inode if entry.inode in self.theirs else 0
        return replace(entry, inode=number, enabled=entry.enabled and not switched_off)

    def stays(self, name: str, entry: Entry) -> bool:
        """Return True if an entry that is not declared, or cannot be as declared now, is left as it was found."""
        handler = self.handlers.get(name)
        if handler is None:
            return entry.inode in self.theirs and self.policy.spares(name)
        useless = "F" not in entry.flags and entry.interpreter == handler.interpreter
        return not (handler.enabled and self.state(name) in ("absent", "untrusted") and useless)

    def differences(self, seen: Seen) -> list[str]:
        """Return the differences from the expected state, in words."""
        found = [f"{name} stands, and should not" for name in seen.entries.keys() - self.expected().keys()]
        for name, wanted in self.expected().items():
            is_ = seen.entries.get(name)
            if is_ is None or replace(is_, inode=is_.inode if wanted.inode else 0) != wanted:
                found.append(f"{name} is {is_} instead of {wanted}")
        found += self._wrong_stand_ins(seen)
        if not seen.switched_on:
            found.append("the instance is switched off")
        return found or self._misremembered(seen)

    def _wrong_stand_ins(self, seen: Seen) -> list[str]:
        """Return the stand-ins that should not exist or that differ from their handler, in words.

        With ``stand_ins = "temporary"`` none is left, except where the interpreter is gone and F keeps serving.
        """
        of = {stand_in_name(name): name for name in self.handlers}
        found = []
        for name, entry in seen.stand_ins.items():
            handler = of.get(name)
            if handler is None or not self.handlers[handler].enabled:
                found.append(f"{name} stands, and should not")
            elif self.must_stand(handler) and (
                self.policy.stand_ins == "temporary" or not entry.does(self.handlers[handler])
            ):
                found.append(f"{name} is {entry}")
        return found

    def foreign(self, seen: Seen) -> list[str]:
        return [name for name in seen.entries if name not in self.handlers]

    def _misremembered(self, seen: Seen) -> list[str]:
        """Return the errors in the status, the ledger and the memory, in words."""
        found = []
        states = {self._row(name, seen) for name, each in self.handlers.items() if each.enabled}
        wanted = "degraded" if "refused" in states else "waiting" if "waiting" in states else "converged"
        if seen.status["state"] not in (wanted, "contended"):
            found.append(f"the status says {seen.status['state']} instead of {wanted}")
        reasons = {row["name"]: row["reason"] for row in seen.status["handlers"]}
        for name, handler in self.handlers.items():  # the state alone can be the same before and after
            faults = {"absent": "no executable file", "untrusted": "writable by other users"}
            reported = {state for state, words in faults.items() if words in reasons.get(name, "")}
            if handler.enabled and reported != faults.keys() & {self.state(name)}:
                found.append(f"the status says of {name}, whose interpreter is {self.state(name)}: {reasons}")
        foreign = [{"name": name, "enabled": seen.entries[name].enabled} for name in self.foreign(seen)]
        if seen.status["foreign"] != foreign:
            found.append(f"the status names {seen.status['foreign']} as foreign instead of {foreign}")
        for name, record in seen.ledger.items():
            entry = seen.entries.get(name) or seen.stand_ins.get(name)
            if entry is None or entry.inode != record["inode"]:
                found.append(f"the ledger has {record} for {name}, which is {entry}")
        for name, entry in seen.entries.items():
            if self.must_stand(name) and (entry.inode not in self.theirs or "F" in entry.flags):
                if name not in seen.ledger:
                    found.append(f"the ledger lacks {name}")
                elif "F" in entry.flags and seen.ledger[name]["pinned"] != seen.files[entry.interpreter]:
                    found.append(f"F has opened {seen.ledger[name]['pinned']} for {name}")
        restorable = {name: seen.entries[name].inode for name in self.foreign(seen) if self.policy.restores(name)}
        remembered = {name: record["inode"] for name, record in seen.foreign_entries.items()}
        if remembered != restorable:
            found.append(f"remembered are {remembered} instead of {restorable}")
        return found

    def _row(self, name: str, seen: Seen) -> str:
        """Return the handler's state.  A file that F has opened still serves, by the entry or by its stand-in."""
        if self.state(name) == "good":
            return "registered"
        if self.state(name) == "untrusted":
            return "refused"
        entries = (seen.entries.get(name), seen.stand_ins.get(stand_in_name(name)))
        path = self.handlers[name].interpreter
        opened = any(each and each.enabled and "F" in each.flags and each.interpreter == path for each in entries)
        return "registered" if opened else "waiting"

    def settle(self, seen: Seen) -> None:
        """Continue from this snapshot of a quiet daemon, which had no differences."""
        for name, entry in seen.entries.items():
            if name in self.lost:
                self.theirs.add(entry.inode)
            if self.was_killed and entry.inode in self.new and self.must_stand(name) and name in seen.ledger:
                self.theirs.discard(entry.inode)
            if self.must_stand(name) and "F" in entry.flags:
                self.theirs.discard(entry.inode)  # the daemon counts it as its own now
                self.opened_file[entry.inode] = self.interpreters[entry.interpreter].status
            elif entry.inode not in self.theirs:
                self.opened_file.setdefault(entry.inode, self.interpreters[entry.interpreter].status)
        self.standing = dict(seen.entries)
        self.lost.clear()
        self.fickle.clear()
        self.new.clear()
        self.was_killed = False

    # Which entry takes a program

    def serving(self, seen: Seen, file_name: str, content: bytes) -> tuple[int | str, list[str]]:
        """Return the expected end of a program, and in words each entry that wrongly takes it.

        The end is an exit status, or the text of an error if no entry takes the program.
        """
        owners = {stand_in_name(name): name for name in (*self.handlers, *seen.entries)}
        present: dict[str, Entry] = {}  # handler or foreign entry -> the newer of its entries that take the program
        for name in seen.listed:
            entry = seen.entries.get(name) or seen.stand_ins.get(name)
            if entry is not None and entry.enabled and takes(entry.match, file_name, content):
                present.setdefault(owners.get(name, name), entry)
        takers = list(present)
        ranked = [name for name in takers if self.must_stand(name)]
        rank = {name: (handler.priority, place) for place, (name, handler) in enumerate(self.handlers.items())}

        def outranks(one: str, other: str) -> bool:
            """Return True if ``one`` belongs above ``other``; only priorities order an extension and a magic."""
            alike = _by_name(present[one]) == _by_name(present[other])
            priorities = self.handlers[one].priority, self.handlers[other].priority
            return rank[one] > rank[other] and (alike or priorities[0] != priorities[1])

        wrong = [f"{ranked[0]} takes {file_name} from {each}" for each in ranked[1:] if outranks(each, ranked[0])]
        if self.policy.shadowed == "outrank":
            for place, name in enumerate(takers):
                if name not in self.handlers:
                    below = [each for each in takers[place + 1 :] if each in ranked]
                    kin = [each for each in below if _by_name(present[each]) == _by_name(present[name])]
                    wrong += [f"foreign {name} takes {file_name} from {each}" for each in kin]
        if not takers:
            return os.strerror(errno.ENOEXEC), wrong
        top = present[takers[0]]
        interpreter = self.interpreters[top.interpreter]
        if "F" in top.flags:
            return self.opened_file.get(top.inode, interpreter.status), wrong
        return interpreter.error or interpreter.status, wrong


def _by_name(entry: Entry) -> bool:
    return isinstance(entry.match, str)
