"""What should stand on an instance after anything at all has happened to it: the chaos test's own idea of that.

It asks nothing of binfmtd, and knows no events and no order of events: only what was declared, which interpreters are
there, what others registered, and what stood when it was quiet.

* A handler that is enabled, with its interpreter there, stands as declared.  Any other is left as it was found: where
  its interpreter is missing, only an entry without F that leads to just that goes; ``enabled = false`` is switched off.
* What others registered under a name that nobody declares is theirs: it stays, number and text, unless ``unmanaged``
  takes it away.  What the daemon registered there goes.
* What ``restore`` names comes back after a flush, as it was.
* Who takes a program: the newest.  Of declared ones that is the higher priority, then the later declared.
"""

import errno
import os
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from binfmtd.model.standin import stand_in_name

Match = str | frozenset[tuple[int, int, int]]  # an extension, or (place, mask, byte) for each byte that matters

NOBODY_YET = ""  # in ``fickle``: whoever comes now may still be treated by the old policy


@dataclass(frozen=True)
class Kind:
    """A match as it is written."""

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
    """What the config says of one name."""

    kind: Kind
    interpreter: str
    flags: str = ""
    priority: int = 0
    enabled: bool = True


@dataclass(frozen=True)
class Entry:
    """What the kernel holds; ``inode`` 0 stands for any number."""

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
        """Whether it is just what is declared."""
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
    """What lies at a path: a program that ends with ``status``, and ``good``, ``absent`` or ``untrusted``."""

    status: int
    state: str = "good"


@dataclass(frozen=True)
class Seen:
    """One look at everything: the entries newest first, what the daemon says of itself, and what it wrote down."""

    entries: dict[str, Entry]
    switched_on: bool
    status: dict[str, Any]
    ledger: dict[str, Any]
    memory: dict[str, Any]  # name -> record
    files: dict[str, list[int] | None]  # path of an interpreter -> fingerprint
    stand_ins: dict[str, Entry]


@dataclass
class Model:
    """What was done, as far as it matters.

    ``fickle`` are the names whose fate depends on what the daemon has noticed so far: nothing more is done to them
    before it is quiet.
    """

    handlers: dict[str, Handler]
    policy: Policy
    interpreters: dict[str, Interpreter]
    standing: dict[str, Entry] = field(default_factory=dict)
    theirs: set[int] = field(default_factory=set)  # numbers of what others registered
    lost: dict[str, Entry] = field(default_factory=dict)  # what has to come back
    pinned: dict[int, int] = field(default_factory=dict)  # number -> status of the program that F opened
    fickle: set[str] = field(default_factory=set)

    # What was done

    def put(self, name: str, entry: Entry) -> None:
        """Others registered it."""
        self.lost.pop(name, None)
        self.standing[name] = entry
        self.theirs.add(entry.inode)
        if known := self.interpreters.get(entry.interpreter):
            self.pinned[entry.inode] = known.status
        if name not in self.handlers and self.policy.restores(name):
            self.fickle.add(name)  # has to be seen before it can come back

    def removed(self, name: str) -> None:
        self.standing.pop(name, None)
        self.lost.pop(name, None)

    def switched(self, name: str, *, enabled: bool) -> None:
        """Somebody enabled or disabled an entry."""
        if name in self.standing:
            self.standing[name] = replace(self.standing[name], enabled=enabled)
            if self.policy.restores(name):
                self.fickle.add(name)

    def flushed(self) -> None:
        """Everything is gone, with the instance or without it."""
        for name, entry in self.standing.items():
            if name not in self.handlers and entry.inode in self.theirs and self.policy.restores(name):
                self.lost[name] = replace(entry, inode=0)
        self.standing.clear()

    def declared(self, handlers: dict[str, Handler], policy: Policy) -> None:
        """Another config comes into force."""
        old = dict(self.handlers)
        before = {name for name in old if self.must_stand(name)}
        if policy != self.policy:
            self.fickle |= (self.standing.keys() - old.keys()) | {NOBODY_YET}
        self.handlers, self.policy = handlers, policy
        after = {name for name in handlers if self.must_stand(name)}
        self.fickle |= (old.keys() | handlers.keys()) - (before & after)
        self.lost = {name: was for name, was in self.lost.items() if name not in handlers and policy.restores(name)}

    def changed(self, path: str, interpreter: Interpreter) -> None:
        """Something else lies at the path now."""
        if self.interpreters[path].state != interpreter.state:
            self.fickle |= {name for name, handler in self.handlers.items() if handler.interpreter == path}
        self.interpreters[path] = interpreter

    def stopped(self) -> None:
        """The daemon ended in good order: with ``on_stop = "remove"`` all that is ours has gone."""
        if self.policy.on_stop == "remove":
            for name, entry in list(self.standing.items()):
                as_declared = self.must_stand(name) and entry.does(self.handlers[name])
                if as_declared or entry.inode not in self.theirs:
                    del self.standing[name]

    # What should stand

    def state(self, name: str) -> str:
        return self.interpreters[self.handlers[name].interpreter].state

    def must_stand(self, name: str) -> bool:
        return name in self.handlers and self.handlers[name].enabled and self.state(name) == "good"

    def expected(self) -> dict[str, Entry]:
        found = {name: Entry.of(self.handlers[name]) for name in self.handlers if self.must_stand(name)} | self.lost
        left = {name: entry for name, entry in self.standing.items() if name not in found and self.stays(name, entry)}
        return found | {name: self._left(name, entry) for name, entry in left.items()}

    def _left(self, name: str, entry: Entry) -> Entry:
        """As it was found, but switched off where the config says so; ours may have been registered anew before."""
        switched_off = name in self.handlers and not self.handlers[name].enabled
        number = entry.inode if entry.inode in self.theirs else 0
        return replace(entry, inode=number, enabled=entry.enabled and not switched_off)

    def stays(self, name: str, entry: Entry) -> bool:
        """Whether what nobody wants there, or cannot have now, is left as it was found."""
        handler = self.handlers.get(name)
        if handler is None:
            return entry.inode in self.theirs and self.policy.spares(name)
        useless = "F" not in entry.flags and entry.interpreter == handler.interpreter
        return not (handler.enabled and self.state(name) == "absent" and useless)

    def differences(self, seen: Seen) -> list[str]:
        """What is not as it should be, in words."""
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
        """A stand-in says what its handler does; under "temporary" none is left, but where F serves a lost file."""
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
        """What the status, the ledger and the memory say that is not so."""
        found = []
        states = {self._row(name, seen.entries.get(name)) for name, each in self.handlers.items() if each.enabled}
        wanted = "degraded" if "refused" in states else "waiting" if "waiting" in states else "converged"
        if seen.status["state"] not in (wanted, "contended"):
            found.append(f"the status says {seen.status['state']} instead of {wanted}")
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
        remembered = {name: record["inode"] for name, record in seen.memory.items()}
        if remembered != restorable:
            found.append(f"remembered are {remembered} instead of {restorable}")
        return found

    def _row(self, name: str, entry: Entry | None) -> str:
        if self.state(name) == "good":
            return "registered"
        if self.state(name) == "untrusted":
            return "refused"
        pinned = entry is not None and "F" in entry.flags and entry.interpreter == self.handlers[name].interpreter
        return "registered" if pinned else "waiting"

    def settle(self, seen: Seen) -> None:
        """It is quiet, and all is as it should be: go on from here."""
        for name, entry in seen.entries.items():
            if name in self.lost:
                self.theirs.add(entry.inode)
            if self.must_stand(name) and "F" in entry.flags:
                self.theirs.discard(entry.inode)  # the daemon vouches for it
                self.pinned[entry.inode] = self.interpreters[entry.interpreter].status
            elif entry.inode not in self.theirs:
                self.pinned.setdefault(entry.inode, self.interpreters[entry.interpreter].status)
        self.standing = dict(seen.entries)
        self.lost.clear()
        self.fickle.clear()

    # Who takes what

    def serving(self, seen: Seen, file_name: str, content: bytes) -> tuple[int | str, list[str]]:
        """What the program should end with (a status, or an error where nobody takes it), and who wrongly takes it."""

        def serves(name: str, entry: Entry) -> bool:
            """By its proper entry or by its stand-in, which F keeps serving when the interpreter has gone."""
            both = (entry, seen.stand_ins.get(stand_in_name(name)))
            return any(each is not None and each.enabled and takes(each.match, file_name, content) for each in both)

        takers = [name for name, entry in seen.entries.items() if serves(name, entry)]
        ranked = [name for name in takers if self.must_stand(name)]
        rank = {name: (handler.priority, place) for place, (name, handler) in enumerate(self.handlers.items())}

        def outranks(one: str, other: str) -> bool:
            """An extension and a magic have an order only by their priorities."""
            alike = isinstance(seen.entries[one].match, str) == isinstance(seen.entries[other].match, str)
            priorities = self.handlers[one].priority, self.handlers[other].priority
            return rank[one] > rank[other] and (alike or priorities[0] != priorities[1])

        wrong = [f"{ranked[0]} takes {file_name} from {each}" for each in ranked[1:] if outranks(each, ranked[0])]
        if self.policy.shadowed == "outrank":
            for place, name in enumerate(takers):
                if name not in self.handlers:
                    below = [each for each in takers[place + 1 :] if each in ranked]
                    kin = [e for e in below if isinstance(seen.entries[e].match, str) == _by_name(seen.entries[name])]
                    wrong += [f"foreign {name} takes {file_name} from {each}" for each in kin]
        if not takers:
            return os.strerror(errno.ENOEXEC), wrong
        top = seen.entries[takers[0]]
        if "F" in top.flags and top.inode in self.pinned:
            return self.pinned[top.inode], wrong
        return self.interpreters[top.interpreter].status, wrong


def _by_name(entry: Entry) -> bool:
    return isinstance(entry.match, str)
