"""Writing stand-ins, the first step of a repair (model/stand_in.py defines them)."""

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from binfmtd.errors import Again, FormatError, WriteRefusedError
from binfmtd.formats.register_line import encode_line, rename_line
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.writer import REMOVE, Writer, refusal
from binfmtd.model.bridge import may_stand_in, overtaken
from binfmtd.model.desired import DesiredState
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Handler
from binfmtd.model.ownership import equal
from binfmtd.model.stand_in import stand_in_name


class StandIns:
    """The stand-ins of one desired state."""

    def __init__(
        self,
        desired: DesiredState,
        yielding_to: Mapping[str, tuple[str, ...]],
        standing: Iterable[str] | None = None,
        apart: Iterable[int] = (),
    ) -> None:
        """Prepare for one desired state; ``yielding_to``: handler -> the foreign entries that the config lets win.

        ``standing``: the names that existed at the last look, if it is known.  A stand-in that did not exist then is
        registered without being looked up: the lookup of a missing name takes as long as its registration.  ``apart``:
        the inode numbers of entries that are known to share no file with a handler; used when they are first needed.
        """
        self._desired = desired
        self._met = None if standing is None else set(standing)
        self._yielding_to = yielding_to
        self._lines: dict[str, bytes | None] = {}  # by the name of the entry that they register
        self._apart: set[int] = set()  # inode numbers of entries that share no file with a handler
        self._known_apart = apart  # more of them
        self._helping: set[str] = set()  # stand-ins whose helper already serves

    def independent(self, handlers: Iterable[Handler]) -> dict[str, bytes]:
        """Return the lines of the stand-ins that may be registered without reading other entries, by handler name.

        No other handler and no foreign entry that wins takes their files.  F opens no interpreter of theirs on a file
        system that may not answer.
        """
        lines = {}
        for handler in handlers:
            line, name = self.line(handler), handler.name
            alone = not (self._desired.higher.get(name) or self._desired.lower.get(name) or name in self._yielding_to)
            if line is not None and alone and self._desired.opens(handler.registration) is None:
                lines[name] = line
        return lines

    def rush(self, prepared: Mapping[str, bytes], may: Callable[[str], bool], writer: Writer) -> list[str]:
        """Write the lines of ``independent`` back to back; return the handlers whose stand-in was missing.

        ``may`` is called for each handler just before its line is written, so the first line does not wait for the
        checks of the later ones.  Refused lines are left to ``bridge``.
        """
        names: list[str] = []

        def lines() -> Iterator[bytes]:
            for name, line in prepared.items():
                if may(name):
                    names.append(name)
                    yield line

        results = writer.register(lines())
        if self._met is not None:  # also those that are refused with EEXIST: they exist
            self._met.update(map(stand_in_name, names))
        return [name for name, error in zip(names, results, strict=True) if error is None]

    def help(self, handlers: Iterable[Handler], writer: Writer) -> None:
        """Register the helpers of these handlers' stand-ins, above all existing entries.

        The caller then calls ``renew`` for the handlers that need it, and ``end_help``.
        """
        lines = {stand_in_name(handler.name): self._helper_line(handler) for handler in handlers}
        known = {name: line for name, line in lines.items() if line is not None}
        results = writer.register(known.values())
        self._helping.update(name for name, error in zip(known, results, strict=True) if error is None)

    def end_help(self, writer: Writer) -> None:
        """Remove the helpers that ``renew`` did not use.  Raises nothing: the next pass removes the rest."""
        helping, self._helping = self._helping, set()
        with suppress(WriteRefusedError):
            for name in helping:
                writer.control(stand_in_name(name), REMOVE)

    def has_met(self, name: str) -> bool:
        """Return True if an entry of this name existed at the last look, and no other program has touched it since.

        Returns True for every name if no look is known.
        """
        return self._met is None or name in self._met

    def touched(self, names: Collection[str]) -> None:
        """Note that entries of these names may have been removed since the last look."""
        if self._met is not None:
            self._met.difference_update(names)

    def line(self, handler: Handler) -> bytes | None:
        """Return the line that registers a handler's stand-in; None if the name of the stand-in makes it too long."""
        return self._line(stand_in_name(handler.name), handler)

    def _line(self, name: str, handler: Handler) -> bytes | None:
        if name not in self._lines:
            try:
                self._lines[name] = encode_line(name, handler.registration)
            except FormatError:
                self._lines[name] = None
        return self._lines[name]

    def _helper_line(self, handler: Handler) -> bytes | None:
        """Return the line of a handler's helper, whose name no handler can have; None if it would be too long."""
        line, name = self.line(handler), stand_in_name(stand_in_name(handler.name))
        if name not in self._lines:
            try:
                self._lines[name] = None if line is None else rename_line(line, name)
            except FormatError:
                self._lines[name] = None
        return self._lines[name]

    def bridge(
        self, handlers: Iterable[Handler], instance: Instance, writer: Writer, group: Collection[str] = ()
    ) -> tuple[list[str], dict[str, WriteRefusedError]]:
        """Register the stand-ins that are allowed and missing, for handlers in ascending rank.

        A handler gets none while an entry that should win over it takes the same files (``may_stand_in``).  Entries of
        ``group`` are about to be registered again.  Those that get a stand-in now, too, do not count: it lies above.
        If they did, files that only the lower handler takes would have no handler meanwhile.

        Returns the names that got a stand-in, and the refusals.  Raises WriteRefusedError if nothing can be written.
        """
        bridged_too = {name for name in group if instance.inode(stand_in_name(name)) is None}

        def present(name: str) -> bool:
            if name in bridged_too:
                return False
            entry = instance.entry(name)
            return entry is not None and entry.enabled

        wanted: dict[str, tuple[Handler, bytes]] = {}
        for handler in handlers:
            line = self.line(handler)
            if line is None or self._is_there(stand_in_name(handler.name), instance):
                continue
            if may_stand_in(handler, self._desired, self._yielding_to.get(handler.name, ()), present):
                wanted[handler.name] = handler, line
        return self._register_missing(wanted, writer)

    def register(self, handlers: Iterable[Handler], writer: Writer) -> tuple[list[str], dict[str, WriteRefusedError]]:
        """Register the missing stand-ins of these handlers without a look at other entries.

        Results and errors are as in ``bridge``.
        """
        wanted = {handler.name: (handler, line) for handler in handlers if (line := self.line(handler))}
        return self._register_missing(wanted, writer)

    def _register_missing(
        self, wanted: Mapping[str, tuple[Handler, bytes]], writer: Writer
    ) -> tuple[list[str], dict[str, WriteRefusedError]]:
        if not wanted:
            return [], {}
        bridged, refused = self._register(wanted, writer)
        if self._met is not None:
            self._met.update(map(stand_in_name, wanted))
        return bridged, refused

    def renew(
        self, handlers: Iterable[Handler], instance: Instance, writer: Writer, certain: Collection[str] = ()
    ) -> tuple[list[str], dict[str, WriteRefusedError]]:
        """Put the stand-ins on top again that lie below a newer entry which takes their files.

        A helper under its own name serves while the stand-in is removed and registered again, so their files always
        have a handler.  Handlers, results and errors are as in ``bridge``.  ``certain``: handlers whose stand-in
        certainly lies below a newer entry.
        """
        ranked = {stand_in_name(handler.name): handler for handler in handlers}
        standing = {name: handler for name, handler in ranked.items() if self._is_there(name, instance)}
        if not standing:
            return [], {}
        below = {name for name, handler in standing.items() if handler.name in certain}
        if unknown := {name: handler for name, handler in standing.items() if name not in below}:
            below |= self._overtaken(unknown, instance)
        covered: set[str] = set()  # names whose new stand-ins will lie above those of lower rank

        def present(name: str) -> bool:
            entry = None if name in covered else instance.entry(name)
            return entry is not None and entry.enabled

        again: dict[str, tuple[Handler, bytes]] = {}
        helpers: dict[str, tuple[Handler, bytes]] = {}
        for name, handler in reversed(standing.items()):
            line, helper = self.line(handler), self._helper_line(handler)
            yielding_to = self._yielding_to.get(handler.name, ())
            if name in below and line and helper and may_stand_in(handler, self._desired, yielding_to, present):
                again = {name: (handler, line), **again}
                helpers = {name: (handler, helper), **helpers}
                covered |= {handler.name, name}
        renewed, refused = self._exchange(again, helpers, writer) if again else ([], {})
        return [ranked[name].name for name in renewed], {ranked[name].name: why for name, why in refused.items()}

    def keep(
        self, stand_ins: Iterable[Handler], instance: Instance, writer: Writer
    ) -> tuple[list[str], dict[str, WriteRefusedError]]:
        """Register permanent stand-ins, given in ascending rank under their own names; replace those that exist.

        Results and errors are as in ``bridge``, but with the stand-ins' names.
        """
        lines: dict[str, tuple[Handler, bytes]] = {}
        helpers: dict[str, tuple[Handler, bytes]] = {}
        too_long: dict[str, WriteRefusedError] = {}
        for stand_in in stand_ins:
            name = stand_in.name
            line, helper = self._line(name, stand_in), self._line(stand_in_name(name), stand_in)
            there = instance.inode(name) is not None
            if line is None or (there and helper is None):
                why = "the registration of its stand-in is too long: shorten name, magic or mask"
                too_long[name] = WriteRefusedError(why, errno.EINVAL, Again.RELOAD)
                continue
            lines[name] = stand_in, line
            if there and helper is not None:
                helpers[name] = stand_in, helper
        done, refused = self._exchange(lines, helpers, writer) if lines else ([], {})
        if self._met is not None:
            self._met.update(done)
        return done, refused | too_long

    def _exchange(
        self, lines: Mapping[str, tuple[Handler, bytes]], helpers: Mapping[str, tuple[Handler, bytes]], writer: Writer
    ) -> tuple[list[str], dict[str, WriteRefusedError]]:
        """Register stand-ins, given under their own names; while an existing one is replaced, its helper serves.

        Results and errors are as in ``bridge``, but with the stand-ins' names.
        """
        missing = {name: line for name, line in helpers.items() if name not in self._helping}
        helped, refused = self._register(missing, writer) if missing else ([], {})
        helped += helpers.keys() - missing.keys()
        self._helping -= helpers.keys()
        for name in helped:
            writer.control(name, REMOVE)
        wanted = {name: line for name, line in lines.items() if name not in helpers or name in helped}
        done, refused_too = self._register(wanted, writer)
        for name in helped:
            if name not in refused_too:
                writer.control(stand_in_name(name), REMOVE)
        return done, refused | refused_too

    def _overtaken(self, standing: Mapping[str, Handler], instance: Instance) -> set[str]:
        """Return the enabled stand-ins that lie below an entry which takes their files."""
        below, above, left = set[str](), list[Entry](), set(standing)
        for name, inode in instance.newest_first():
            if name not in left and self._is_apart(inode):
                continue
            entry = instance.entry(name)
            if entry is None or entry.registration is None:
                continue
            if name in left:
                left.remove(name)
                handler = standing[name]
                ours = entry.enabled and equal(entry.registration, handler.registration)
                if ours and overtaken(handler, self._desired, above):
                    below.add(name)
                if not left:
                    break
            elif self._desired.overlapping(entry.registration.match):
                above.append(entry)
            else:
                self._apart.add(inode)
        return below

    def _is_apart(self, inode: int) -> bool:
        """Return True if the entry is known to share no file with a handler."""
        if self._known_apart:
            self._apart.update(self._known_apart)
            self._known_apart = ()
        return inode in self._apart

    def _register(
        self, wanted: Mapping[str, tuple[Handler, bytes]], writer: Writer
    ) -> tuple[list[str], dict[str, WriteRefusedError]]:
        """Register these lines; return the names that were registered, and the refusals."""
        done, refused = [], {}
        opening: dict[int, str] = {}
        if self._desired.remote:
            # A file system that does not answer delays the lines after it: such a line comes last if its rank allows.
            opens = {name: self._desired.opens(handler.registration) for name, (handler, _) in wanted.items()}
            free = {name for name, path in opens.items() if path and not self._ordered(wanted[name][0])}
            wanted = {name: wanted[name] for name in sorted(wanted, key=free.__contains__)}
            opening = {place: path for place, name in enumerate(wanted) if (path := opens[name])}
        results = writer.register([line for _, line in wanted.values()], opening)
        for (name, (handler, _)), error in zip(wanted.items(), results, strict=True):
            if error is None:
                done.append(name)
            elif error.errno != errno.EEXIST:  # else another daemon with the same handlers registered it
                refused[name] = refusal(handler.registration, error)
        return done, refused

    def _ordered(self, handler: Handler) -> bool:
        """Return True if the rank of the handler matters for another one."""
        higher = self._desired.higher
        return bool(higher.get(handler.name)) or any(handler in above for above in higher.values())

    def _is_there(self, name: str, instance: Instance) -> bool:
        return (self._met is None or name in self._met) and instance.inode(name) is not None
