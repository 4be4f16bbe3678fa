"""Writing stand-ins: the first step of a repair (model/standin.py says what they are)."""

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from binfmtd.errors import Again, FormatError, WriteRefusedError
from binfmtd.formats.line import encode_line, rename_line
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.write import REMOVE, Writer, refusal
from binfmtd.model.bridge import may_stand_in, overtaken
from binfmtd.model.desired import DesiredState
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Handler
from binfmtd.model.ownership import equal
from binfmtd.model.standin import stand_in_name


class StandIns:
    """The stand-ins of one desired state."""

    def __init__(
        self, desired: DesiredState, yielding_to: Mapping[str, tuple[str, ...]], standing: Iterable[str] | None = None
    ) -> None:
        """``yielding_to``: handler -> the foreign entries that the config lets win.

        ``standing``: the names that were there at the last look, if that is known.  A stand-in that was not is not
        looked for but registered: to ask the kernel for a name that it does not have takes as long.
        """
        self._desired = desired
        self._met = None if standing is None else set(standing)
        self._yielding_to = yielding_to
        self._lines: dict[str, bytes | None] = {}  # by the name that they register
        self._apart: set[int] = set()  # entries that share no file with a handler
        self._helping: set[str] = set()  # stand-ins whose helper serves already

    def independent(self, handlers: Iterable[Handler]) -> dict[str, bytes]:
        """Return the lines of the stand-ins that may be registered without a look, by their handlers' names.

        No other handler and no foreign entry that wins takes their files, and their interpreters' file systems answer.
        """
        found = {}
        for handler in handlers:
            line, name = self.line(handler), handler.name
            alone = not (self._desired.higher.get(name) or self._desired.lower.get(name) or name in self._yielding_to)
            if line is not None and alone and self._desired.opens(handler.registration) is None:
                found[name] = line
        return found

    def rush(self, prepared: Mapping[str, bytes], may: Callable[[str], bool], writer: Writer) -> list[str]:
        """Write what ``independent`` prepared back to back; returns the handlers whose stand-in was not there.

        ``may`` is asked of each handler before its own line is written, so that the first is not kept waiting.  What is
        refused is left to ``bridge``.
        """
        names: list[str] = []

        def lines() -> Iterator[bytes]:
            for name, line in prepared.items():
                if may(name):
                    names.append(name)
                    yield line

        results = writer.register(lines())
        if self._met is not None:  # also those that are refused with EEXIST, since they are there
            self._met.update(map(stand_in_name, names))
        return [name for name, error in zip(names, results, strict=True) if error is None]

    def help(self, handlers: Iterable[Handler], writer: Writer) -> None:
        """Register the helpers of these handlers' stand-ins, on top of all that is there.

        Next comes ``renew`` for those that need it, and ``end_help``.
        """
        lines = {stand_in_name(handler.name): self._helper_line(handler) for handler in handlers}
        known = {name: line for name, line in lines.items() if line is not None}
        results = writer.register(known.values())
        self._helping.update(name for name, error in zip(known, results, strict=True) if error is None)

    def end_help(self, writer: Writer) -> None:
        """Remove the helpers that ``renew`` did not use.  Raises nothing: the next pass removes what is left."""
        helping, self._helping = self._helping, set()
        with suppress(WriteRefusedError):
            for name in helping:
                writer.control(stand_in_name(name), REMOVE)

    def has_met(self, name: str) -> bool:
        """Whether an entry of this name was there at the last look, and no other program has touched it since."""
        return self._met is None or name in self._met

    def touched(self, names: Collection[str]) -> None:
        """Take it that entries of these names may have gone since the last look."""
        if self._met is not None:
            self._met.difference_update(names)

    def line(self, handler: Handler) -> bytes | None:
        """The line that registers a handler's stand-in; None where it would be too long with the helper name."""
        return self._line(stand_in_name(handler.name), handler)

    def _line(self, name: str, handler: Handler) -> bytes | None:
        if name not in self._lines:
            try:
                self._lines[name] = encode_line(name, handler.registration)
            except FormatError:
                self._lines[name] = None
        return self._lines[name]

    def _helper_line(self, handler: Handler) -> bytes | None:
        """Return the line for a handler's stand-in under the name of its helper, which no handler can have."""
        line, name = self.line(handler), stand_in_name(stand_in_name(handler.name))
        if name not in self._lines:
            try:
                self._lines[name] = None if line is None else rename_line(line, name)
            except FormatError:
                self._lines[name] = None
        return self._lines[name]

    def bridge(
        self, handlers: Iterable[Handler], instance: Instance, writer: Writer, company: Collection[str] = ()
    ) -> tuple[list[str], dict[str, WriteRefusedError]]:
        """Register those that are allowed and not there yet, given the handlers in ascending rank.

        The names of ``company`` are about to be registered anew: those that get a stand-in now as well, above the
        lower ones', are no reason to withhold one, or files that only the lower takes would be without a handler.

        Returns the names that got one, and the refusals.  Raises WriteRefusedError if nothing can be written.
        """
        bridged_too = {name for name in company if instance.inode(stand_in_name(name)) is None}

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

        A helper with a name of its own serves while the stand-in is removed and registered again, so their files have
        a handler at each moment.  Handlers, results and errors as for ``bridge``.  ``certain``: handlers whose stand-in
        is known to lie below a newer entry.
        """
        ranked = {stand_in_name(handler.name): handler for handler in handlers}
        standing = {name: handler for name, handler in ranked.items() if self._is_there(name, instance)}
        below = {name for name, handler in standing.items() if handler.name in certain}
        if unknown := {name: handler for name, handler in standing.items() if name not in below}:
            below |= self._overtaken(unknown, instance)
        covered: set[str] = set()  # these come to lie above those of lower rank

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
        """Register permanent stand-ins, those that are there anew, given in ascending rank under their own names.

        Results and errors as for ``bridge``, but with the stand-ins' names.
        """
        lines: dict[str, tuple[Handler, bytes]] = {}
        helpers: dict[str, tuple[Handler, bytes]] = {}
        too_long: dict[str, WriteRefusedError] = {}
        for stand_in in stand_ins:
            name = stand_in.name
            line, helper = self._line(name, stand_in), self._line(stand_in_name(name), stand_in)
            there = instance.inode(name) is not None
            if line is None or (there and helper is None):
                why = "its line is too long with the name of a stand-in: shorten name, magic or mask"
                too_long[name] = WriteRefusedError(why, errno.EINVAL, Again.RELOAD)
                continue
            lines[name] = stand_in, line
            if there and helper is not None:
                helpers[name] = stand_in, helper
        done, refused = self._exchange(lines, helpers, writer) if lines else ([], {})
        return done, refused | too_long

    def _exchange(
        self, lines: Mapping[str, tuple[Handler, bytes]], helpers: Mapping[str, tuple[Handler, bytes]], writer: Writer
    ) -> tuple[list[str], dict[str, WriteRefusedError]]:
        """Register stand-ins, given by their own names; while one is exchanged its helper serves.

        Results and errors as for ``bridge``, but with the stand-ins' names.
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
        """The stand-ins, enabled ones, that lie below what takes their files."""
        found, above, left = set[str](), list[Entry](), set(standing)
        for name, inode in instance.inodes():
            if inode in self._apart:
                continue
            entry = instance.entry(name)
            if entry is None or entry.registration is None:
                continue
            if name in left:
                left.remove(name)
                handler = standing[name]
                ours = entry.enabled and equal(entry.registration, handler.registration)
                if ours and overtaken(handler, self._desired, above):
                    found.add(name)
                if not left:
                    break
            elif self._desired.overlapping(entry.registration.match):
                above.append(entry)
            else:
                self._apart.add(inode)
        return found

    def _register(
        self, wanted: Mapping[str, tuple[Handler, bytes]], writer: Writer
    ) -> tuple[list[str], dict[str, WriteRefusedError]]:
        """Register these lines; returns the names that were registered, and the refusals."""
        done, refused = [], {}
        # A file system that does not answer delays what is written after it: such lines come last where order allows.
        opens = {name: self._desired.opens(handler.registration) for name, (handler, _) in wanted.items()}
        if any(opens.values()):
            free = {name for name, path in opens.items() if path and not self._ordered(wanted[name][0])}
            wanted = {name: wanted[name] for name in sorted(wanted, key=free.__contains__)}
        opening = {place: path for place, name in enumerate(wanted) if (path := opens[name])}
        results = writer.register([line for _, line in wanted.values()], opening)
        for (name, (handler, _)), error in zip(wanted.items(), results, strict=True):
            if error is None:
                done.append(name)
            elif error.errno != errno.EEXIST:  # else one is there: another daemon's that keeps the same handlers
                refused[name] = refusal(handler.registration, error)
        return done, refused

    def _ordered(self, handler: Handler) -> bool:
        """Tell if the handler's rank matters for any other."""
        higher = self._desired.higher
        return bool(higher.get(handler.name)) or any(handler in above for above in higher.values())

    def _is_there(self, name: str, instance: Instance) -> bool:
        return (self._met is None or name in self._met) and instance.inode(name) is not None
