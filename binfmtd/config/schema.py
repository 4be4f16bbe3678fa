"""The config's TOML as types: which keys there are, what each may hold, and what to say otherwise.

* Strict: no value is converted, and an unknown key is an error that names the nearest valid one.
* A field is None where the file does not give it.  The defaults are not here: Policy (model/config.py) and build.py
  have them, once each.
* Every file is checked by itself, before anything is merged, so an error names the file that is to blame.
"""

import os
import re
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
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticKnownError

from binfmtd.catalog.names import did_you_mean, find
from binfmtd.config.include import check_word
from binfmtd.config.tables import tables
from binfmtd.errors import ConfigError, FormatError
from binfmtd.formats.address import parse_address
from binfmtd.formats.duration import parse_duration
from binfmtd.formats.escapes import decode
from binfmtd.formats.line import check_interpreter
from binfmtd.model.config import OnStop, Probe, Shadowed, Unmanaged
from binfmtd.model.handler import Flags, check_name
from binfmtd.model.match import Extension, Magic, Match
from binfmtd.model.standin import PREFIX, is_stand_in

PLACEHOLDER = "{name}"


def duration(value: object, least: float, most: float) -> float:
    """Seconds from a text such as ``"1h30m"``, ``"90s"`` or ``"20ms"``; raises ValueError outside of the bounds."""
    try:
        seconds = parse_duration(value if isinstance(value, str) else "")
    except FormatError as error:
        raise ValueError(f'{_shown(value)} {error} in quotes, like "20ms"') from None
    if not least <= seconds <= most:
        raise ValueError(f"{_shown(value)} is out of range: write {least:g}s to {most:g}s")
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


def parse(text: str, file: str) -> ConfigFile:
    """Read one file's text; raises ConfigError, which names ``file``, the key and the remedy."""
    try:
        content = tables(text)
    except (ValueError, RecursionError) as error:  # also numbers of 5,000 digits, and arrays 1,000 deep
        last = f"at line {text.rstrip().count(chr(10)) + 1}, the last"
        reason = " ".join(str(error).split()).replace("at end of document", last)
        remedy = r"write escapes like \x7f in single quotes" if "\\" in reason else "correct it there"
        raise ConfigError(f"{file}: not valid TOML: {reason}: {remedy}") from error
    try:
        return ConfigFile.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A misspelt key comes first: it explains whatever is missing.
        problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
        key, reason = _explain(problems[0])
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{file}: {key}: {reason}{more}") from error


_KEYS: Mapping[tuple[str, int], type[BaseModel]] = {
    ("", 1): ConfigFile,
    ("metrics", 2): MetricsTable,
    ("labels", 2): LabelsTable,
    ("emulators", 2): EmulatorsTable,
    ("emulators", 3): ArchitectureTable,
    ("handlers", 3): HandlerTable,
}

_WANTED = {
    "string_type": "a string, in quotes",
    "int_type": "a whole number, without quotes",
    "bool_type": "true or false, without quotes",
    "list_type": 'an array, like ["a", "b"]',
    "dict_type": "a table",
    "model_type": "a table",
}


def _explain(problem: ErrorDetails) -> tuple[str, str]:
    """Key and reason, in the config's words."""
    location, value, kind = problem["loc"], problem["input"], problem["type"]
    if kind == "value_error":
        if len(location) > 2 and location[-1] == "[key]":  # pydantic's mark for a key of a mapping
            location = location[:-1]
        reason = str(problem["ctx"]["error"])
    elif kind == "extra_forbidden" or _is_no_architecture(problem):
        known = _KEYS["" if len(location) == 1 else str(location[0]), len(location)].model_fields
        hint = did_you_mean(str(location[-1]), known) or f"valid here are {', '.join(known)}"
        reason = f"unknown key: {hint}"
    elif kind == "enum":
        reason = f"{_shown(value)} is not valid: write {problem['ctx']['expected']}"
    elif kind == "too_short":
        reason = "is empty: give at least one, or leave the key out"
    else:
        reason = f"{_shown(value)} must be {_WANTED[kind]}" if kind in _WANTED else f"{_shown(value)}: {problem['msg']}"
    return dotted(*location), reason


def _is_no_architecture(problem: ErrorDetails) -> bool:
    """Whether this is a key of [emulators] that was taken for an architecture's table, and is neither."""
    location = problem["loc"]
    if problem["type"] != "model_type" or len(location) != 2 or location[0] != "emulators":
        return False
    try:
        find(str(location[1]))
    except FormatError:
        return True
    return False


def dotted(*parts: str | int) -> str:
    """A key as TOML writes it."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch("[A-Za-z0-9_-]+", part) else repr(part))
    return text


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "what is nested so deeply"
    return text if len(text) <= 60 else text[:57] + "..."
