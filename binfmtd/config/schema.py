"""The config's TOML as types: which keys there are, what each may hold, and what to say otherwise.

* Strict: no value is converted, and an unknown key is an error that names the nearest valid one.
* A field is None where the file does not give it.  The defaults are not here: Policy (model/config.py) and build.py
  have them, once each.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    model_validator,
)
from pydantic_core import PydanticKnownError

from binfmtd.config.include import check_word
from binfmtd.errors import FormatError
from binfmtd.formats.address import parse_address
from binfmtd.formats.duration import parse_duration
from binfmtd.formats.escapes import decode
from binfmtd.formats.line import check_interpreter
from binfmtd.model.config import OnStop, Probe, Shadowed, Unmanaged
from binfmtd.model.handler import Flags, check_name
from binfmtd.model.match import Extension, Magic, Match
from binfmtd.model.standin import PREFIX, is_stand_in

PLACEHOLDER = "{name}"


def shown(value: object) -> str:
    """A value, as an error says it."""
    try:
        text = repr(value)
    except RecursionError:
        return "what is nested so deeply"
    return text if len(text) <= 60 else text[:57] + "..."


def duration(value: object, least: float, most: float) -> float:
    """Seconds from a text such as ``"1h30m"``, ``"90s"`` or ``"20ms"``; raises ValueError outside of the bounds."""
    try:
        seconds = parse_duration(value if isinstance(value, str) else "")
    except FormatError as error:
        raise ValueError(f'{shown(value)} {error} in quotes, like "20ms"') from None
    if not least <= seconds <= most:
        raise ValueError(f"{shown(value)} is out of range: write {least:g}s to {most:g}s")
    return seconds


def _probe(value: object) -> Probe | float:
    words = [word.value for word in Probe]
    if value in words:
        return Probe(str(value))
    try:
        return duration(value, least=10, most=7 * 86400)
    except ValueError as error:
        raise ValueError(f"{error}; or one of {', '.join(words)}") from None


def entry_name(name: str) -> str:
    """A name that a handler may have; raises FormatError."""
    check_name(name)
    if is_stand_in(name):
        raise FormatError(f"name {name!r} begins with {PREFIX!r}, which is the daemon's own: choose another")
    return name


def _raising_value_error(check: Callable[[str], Any]) -> Callable[[object], Any]:
    """The check of a text for pydantic, which collects ValueError and nothing else."""

    def checked(value: object) -> Any:
        if not isinstance(value, str):
            raise PydanticKnownError("string_type")
        try:
            return check(value)
        except FormatError as error:
            raise ValueError(str(error)) from error

    return checked


def _pattern(text: str) -> str:
    if set("{}") & set(text.replace(PLACEHOLDER, "")):
        raise FormatError(f"{text!r} has a brace that is not part of {PLACEHOLDER}: that is the only placeholder")
    return text


def _interpreter(text: str) -> str:
    check_interpreter(text)
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/") or text.endswith("/") or "\0" in text:
        raise FormatError(f"{text!r} is no absolute path of a file: write one, like /run/a-file")
    return text


def _entry_pattern(text: str) -> str:
    if PLACEHOLDER not in text:
        raise FormatError(f"{text!r} would name every architecture alike: put {PLACEHOLDER} into it")
    return _pattern(text)


def _extension(text: str) -> str:
    if "." in text:
        raise FormatError(f"{text!r} never matches: the kernel compares what follows the last dot, so leave dots out")
    return text


def _textfile(path: str) -> str:
    if not os.path.isabs(path) or not path.endswith(".prom") or "\0" in path:
        raise FormatError(f"{path!r} must be an absolute path that ends in .prom: node_exporter reads no other")
    return path


Escaped = Annotated[bytes, BeforeValidator(_raising_value_error(decode))]
Letters = Annotated[Flags, BeforeValidator(_raising_value_error(Flags.parse))]
Interpreter = Annotated[str, BeforeValidator(_raising_value_error(_interpreter))]
InterpreterPattern = Annotated[str, BeforeValidator(_raising_value_error(lambda text: _pattern(_interpreter(text))))]
EntryPattern = Annotated[str, BeforeValidator(_raising_value_error(_pattern))]
EveryEntryPattern = Annotated[str, BeforeValidator(_raising_value_error(_entry_pattern))]
ExtensionText = Annotated[str, BeforeValidator(_raising_value_error(_extension))]
Textfile = Annotated[str, BeforeValidator(_raising_value_error(_textfile))]
Address = Annotated[tuple[str, int], BeforeValidator(_raising_value_error(parse_address))]
IncludeWord = Annotated[str, BeforeValidator(_raising_value_error(check_word))]
AbsolutePath = Annotated[str, BeforeValidator(_raising_value_error(_absolute))]
EntryName = Annotated[str, AfterValidator(_raising_value_error(entry_name))]
_Word = Strict(strict=False)  # to a strict field, "keep" is no Unmanaged


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ArchitectureTable(_Table):
    """``[emulators.NAME]``: one architecture differently."""

    interpreter: InterpreterPattern | None = None
    entry: EntryPattern | None = None
    flags: Letters | None = None
    priority: int | None = None
    force: bool | None = None


class EmulatorsTable(_Table):
    """``[emulators]``: how an architecture becomes a handler; every further key is an architecture's table."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ArchitectureTable] = Field(init=False)

    paths: Annotated[list[InterpreterPattern], Field(min_length=1)] | None = None
    entry: EveryEntryPattern | None = None
    flags: Letters | None = None

    @property
    def by_architecture(self) -> Mapping[str, ArchitectureTable]:
        """The tables, under the names as written."""
        return self.__pydantic_extra__


class HandlerTable(_Table):
    """``[handlers.NAME]``: anything that binfmt_misc can do."""

    magic: Escaped | None = None
    mask: Escaped | None = None
    offset: int | None = None
    extension: ExtensionText | None = None
    interpreter: Interpreter | None = None
    flags: Letters | None = None
    priority: int | None = None
    enabled: bool | None = None
    force: bool | None = None

    def match(self) -> Match:
        """What it takes; raises FormatError."""
        if (self.magic is None) == (self.extension is None):
            raise FormatError("give exactly one of magic and extension")
        if self.magic is not None:
            return Magic(self.magic, self.mask, self.offset or 0)
        for key in ("mask", "offset"):
            if getattr(self, key) is not None:
                raise FormatError(f"{key} goes with magic, and there is an extension: leave {key} out")
        return Extension(self.extension or "")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.interpreter is None:
            raise ValueError("interpreter is missing: give the absolute path of the program to run")
        try:
            self.match()
        except FormatError as error:
            raise ValueError(str(error)) from error
        return self


class MetricsTable(_Table):
    """``[metrics]``: who is told how the daemon fares."""

    textfile: Textfile | None = None
    listen: Address | None = None


class LabelsTable(_Table):
    """``[labels]``: what node-feature-discovery is told."""

    file: AbsolutePath | None = None


class ConfigFile(_Table):
    """One file."""

    architectures: list[str] | None = None
    unmanaged: Annotated[Unmanaged, _Word] | None = None
    keep: list[str] | None = None
    restore: list[str] | None = None
    shadowed: Annotated[Shadowed, _Word] | None = None
    on_stop: Annotated[OnStop, _Word] | None = None
    # The upper bounds keep typing errors out, and the deadline within what poll(2) can wait for (24 days).
    resync: Annotated[float, BeforeValidator(partial(duration, least=1, most=7 * 86400))] | None = None
    settle: Annotated[float, BeforeValidator(partial(duration, least=0, most=1))] | None = None
    reload_on_change: bool | None = None
    probe: Annotated[Probe | float, BeforeValidator(_probe)] | None = None
    include: list[IncludeWord] | None = None
    metrics: MetricsTable = MetricsTable()
    labels: LabelsTable = LabelsTable()
    emulators: EmulatorsTable = EmulatorsTable()
    handlers: dict[EntryName, HandlerTable] = {}
