"""The config's TOML as types: the keys, the values that each may have, and the errors for other values.

* Strict: no value is converted, and an unknown key is an error that names the nearest valid one.
* A parsed table contains only the keys that the file gives.  The defaults are once each in model/config.py
  (Policy, HandlerSpec) and in build.py.
* The tables are plain dictionaries, so that merging and building need no pydantic if there is no file.
"""

import os
import sys
from collections.abc import Callable
from datetime import date
from datetime import time as clock_time
from functools import partial
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, with_config
from pydantic_core import PydanticKnownError
from typing_extensions import TypedDict  # pydantic requires this one below Python 3.12

from binfmtd.catalog.names import find
from binfmtd.config.include import check_word
from binfmtd.config.merge import WAYS_TO_CHOOSE
from binfmtd.errors import FormatError
from binfmtd.formats.address import parse_address
from binfmtd.formats.duration import parse_duration
from binfmtd.formats.escapes import decode
from binfmtd.formats.register_line import check_interpreter
from binfmtd.model.config import PLACEHOLDER, OnStop, Probe, Shadowed, StandInPolicy, Unmanaged
from binfmtd.model.emulator_version import IN_STORE, SYSTEM, check_version
from binfmtd.model.handler import Flags
from binfmtd.model.match import match_of
from binfmtd.model.stand_in import check_handler_name

BY_ARCHITECTURE = "by_architecture"
SETTINGS = "environment"  # a key that users expect to exist
_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"  # https://docs.pydantic.dev/latest/concepts/plugins/
_PLUGIN_LOADER = "pydantic.plugin._loader"


def shown(value: object) -> str:
    """Return a value as text for an error, of at most 60 characters, as TOML has it where Python differs."""
    try:
        if isinstance(value, bool):
            text = str(value).lower()
        else:
            text = value.isoformat() if isinstance(value, date | clock_time) else repr(value)
    except RecursionError:
        return "a value that is nested too deeply"
    except ValueError:  # sys.set_int_max_str_digits
        return "a number with thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def duration(value: object, least: float, most: float) -> float:
    """Return the seconds of a text such as ``"1h30m"``, ``"90s"`` or ``"20ms"``.

    Raises ValueError for a value that is no such text, or that is outside of the bounds in seconds.
    """
    try:
        seconds = parse_duration(value if isinstance(value, str) else "")
    except FormatError as error:
        raise ValueError(f'{shown(value)} {error} in quotes, like "20ms"') from None
    if not least <= seconds <= most:
        longest = f"{most / 3600:g}h" if most >= 3600 else f"{most:g}s"
        raise ValueError(f"{shown(value)} is out of range: write {least:g}s to {longest}")
    return seconds


def _probe(value: object) -> Probe | float:
    words = [word.value for word in Probe]
    if value in words:
        return Probe(str(value))
    try:
        return duration(value, least=10, most=7 * 86400)
    except ValueError as error:
        raise ValueError(f"{error}; or one of {', '.join(words)}") from None


def _entry_name(name: str) -> str:
    check_handler_name(name)
    return name


def _raising_value_error(check: Callable[[str], Any]) -> Callable[[object], Any]:
    """Return the check of a text in a form for pydantic, which collects ValueError and no other error."""

    def checked(value: object) -> Any:
        if not isinstance(value, str):
            raise PydanticKnownError("string_type")
        try:
            return check(value)
        except FormatError as error:
            raise ValueError(str(error)) from error

    return checked


def _architecture(text: str) -> str:
    find(text, also=_emulators_keys())  # as in [emulators.pahts]
    return text


def _pattern(text: str) -> str:
    if set("{}") & set(text.replace(PLACEHOLDER, "")):
        raise FormatError(f"{text!r} has a brace that is not part of {PLACEHOLDER}, the only placeholder: remove it")
    return text


def _interpreter(text: str) -> str:
    check_interpreter(text)
    return text


def _version(text: str) -> str:
    if text != SYSTEM:
        check_version(text)
    return text


def _interpreter_word(text: str) -> str:
    if text.startswith(IN_STORE):
        check_version(text.removeprefix(IN_STORE))
        return text
    if text == SYSTEM:
        return text
    if not text.startswith("/"):
        words = f'an absolute path, "{IN_STORE}VERSION" or "{SYSTEM}"'
        raise FormatError(f"{text!r} is not an interpreter: write {words}")
    return _pattern(_interpreter(text))


def _absolute(text: str) -> str:
    if not text.startswith("/") or text.endswith("/") or "\0" in text:
        raise FormatError(f"{text!r} is not the absolute path of a file: write one, like /run/a-file")
    return text


def _directory(text: str) -> str:
    if not text.startswith("/") or "\0" in text or set("{}") & set(text):
        raise FormatError(f"{text!r} is not the absolute path of a directory: write one, without braces")
    return os.path.normpath(text)


def _entry_pattern(text: str) -> str:
    if PLACEHOLDER not in text:
        raise FormatError(f"{text!r} would give all architectures the same entry name: put {PLACEHOLDER} into it")
    return _pattern(text)


def _extension(text: str) -> str:
    if "." in text:
        compares = "the kernel compares only the text after the last dot of a file's name"
        raise FormatError(f"{text!r} never matches, because {compares}: write it without dots")
    return text


def _name_pattern(text: str) -> str:
    if not text:
        raise FormatError("an empty pattern never matches: write the name of an entry, or remove it")
    if "/" in text or "\0" in text:
        letter = "'/'" if "/" in text else "NUL"
        raise FormatError(f"{text!r} contains {letter}, which no entry's name contains: write the name alone")
    return text


def _textfile(path: str) -> str:
    if not os.path.isabs(path) or not path.endswith(".prom") or "\0" in path:
        raise FormatError(f"{path!r} must be an absolute path that ends in .prom: node_exporter reads no other files")
    return path


LONGEST_LIST = 100  # paths in one list: each costs system calls, those of [emulators] for each architecture

Escaped = Annotated[bytes, BeforeValidator(_raising_value_error(decode))]
Letters = Annotated[Flags, BeforeValidator(_raising_value_error(Flags.parse))]
Interpreter = Annotated[str, BeforeValidator(_raising_value_error(_interpreter))]
InterpreterPattern = Annotated[str, BeforeValidator(_raising_value_error(lambda text: _pattern(_interpreter(text))))]
EntryPattern = Annotated[str, BeforeValidator(_raising_value_error(_pattern))]
EveryEntryPattern = Annotated[str, BeforeValidator(_raising_value_error(_entry_pattern))]
ExtensionText = Annotated[str, BeforeValidator(_raising_value_error(_extension))]
NamePattern = Annotated[str, BeforeValidator(_raising_value_error(_name_pattern))]
Textfile = Annotated[str, BeforeValidator(_raising_value_error(_textfile))]
Address = Annotated[tuple[str, int], BeforeValidator(_raising_value_error(parse_address))]
IncludeWord = Annotated[str, BeforeValidator(_raising_value_error(check_word))]
VersionName = Annotated[str, BeforeValidator(_raising_value_error(_version))]
InterpreterWord = Annotated[str, BeforeValidator(_raising_value_error(_interpreter_word))]
DirectoryPath = Annotated[str, BeforeValidator(_raising_value_error(_directory))]
AbsolutePath = Annotated[str, BeforeValidator(_raising_value_error(_absolute))]
EntryName = Annotated[str, AfterValidator(_raising_value_error(_entry_name))]
ArchitectureKey = Annotated[str, AfterValidator(_raising_value_error(_architecture))]
ArchitectureName = Annotated[str, BeforeValidator(_raising_value_error(lambda text: find(text).name))]
Number = Annotated[int, Field(ge=-(2**31), lt=2**31)]
_Word = Strict(strict=False)  # a strict field does not accept the text "keep" as an Unmanaged


_STRICT = with_config(ConfigDict(strict=True, extra="forbid"))


@_STRICT
class ArchitectureTable(TypedDict, total=False):
    """``[emulators.NAME]``: the settings of one architecture."""

    interpreter: InterpreterPattern
    interpreters: Annotated[list[InterpreterWord], Field(min_length=1, max_length=LONGEST_LIST)]
    version: VersionName
    entry: EntryPattern
    flags: Letters
    priority: Number
    force: bool


def _one_choice(table: ArchitectureTable) -> ArchitectureTable:
    given = [key for key in WAYS_TO_CHOOSE if key in table]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other: keep one of them")
    return table


@_STRICT
class EmulatorsTable(TypedDict, total=False):
    """``[emulators]``: how an architecture becomes a handler; every further key is an architecture's table."""

    paths: Annotated[list[InterpreterPattern], Field(min_length=1, max_length=LONGEST_LIST)]
    version: VersionName
    store: DirectoryPath
    entry: EveryEntryPattern
    flags: Letters
    # under the names as written
    by_architecture: dict[ArchitectureKey, Annotated[ArchitectureTable, AfterValidator(_one_choice)]]


def _emulators_keys() -> set[str]:
    return set(EmulatorsTable.__annotations__) - {BY_ARCHITECTURE}


def _apart(table: object) -> object:
    """Return ``[emulators]`` with the tables of architectures under ``BY_ARCHITECTURE``.

    An unknown key that is neither a table nor an architecture stays where it is, so it is reported as unknown; so does
    SETTINGS.
    """
    if not isinstance(table, dict):
        return table
    others = {
        key: value
        for key, value in table.items()
        if key not in {*_emulators_keys(), SETTINGS}
        and (isinstance(value, dict) or _is_known(key) or key == BY_ARCHITECTURE)
    }
    return {key: value for key, value in table.items() if key not in others} | {BY_ARCHITECTURE: others}


def _is_known(architecture: str) -> bool:
    try:
        find(architecture)
    except FormatError:
        return False
    return True


@_STRICT
class HandlerTable(TypedDict, total=False):
    """``[handlers.NAME]``: a handler of any kind that binfmt_misc supports."""

    match: ArchitectureName
    magic: Escaped
    mask: Escaped
    offset: Number
    extension: ExtensionText
    interpreter: Interpreter
    flags: Letters
    priority: Number
    enabled: bool
    force: bool


def _whole(table: HandlerTable) -> HandlerTable:
    if "interpreter" not in table:
        raise ValueError("interpreter is missing: give the absolute path of the program to run")
    if "match" in table and (others := [key for key in ("magic", "mask", "offset", "extension") if key in table]):
        raise ValueError(f"match stands for an architecture's magic and mask: remove {' and '.join(others)}, or match")
    if "match" in table:
        return table
    try:
        match_of(table.get("magic"), table.get("mask"), table.get("offset"), table.get("extension"))
    except FormatError as error:
        raise ValueError(str(error)) from error
    return table


@_STRICT
class MetricsTable(TypedDict, total=False):
    """``[metrics]``: where the daemon publishes its metrics."""

    textfile: Textfile
    listen: Address


@_STRICT
class LabelsTable(TypedDict, total=False):
    """``[labels]``: the file of labels for node-feature-discovery."""

    file: AbsolutePath


@_STRICT
class ConfigFile(TypedDict, total=False):
    """One file: the keys at its top level."""

    architectures: list[str]
    unmanaged: Annotated[Unmanaged, _Word]
    keep: list[NamePattern]
    restore: list[NamePattern]
    shadowed: Annotated[Shadowed, _Word]
    on_stop: Annotated[OnStop, _Word]
    # The upper bounds catch typing errors, and keep the deadline within the time that poll(2) can wait (24 days).
    resync: Annotated[float, BeforeValidator(partial(duration, least=1, most=7 * 86400))]
    settle: Annotated[float, BeforeValidator(partial(duration, least=0, most=1))]
    reload_on_change: bool
    stand_ins: Annotated[StandInPolicy, _Word]
    sealed: bool
    probe: Annotated[Probe | float, BeforeValidator(_probe)]
    include: Annotated[list[IncludeWord], Field(max_length=LONGEST_LIST)]
    metrics: MetricsTable
    labels: LabelsTable
    emulators: Annotated[EmulatorsTable, BeforeValidator(_apart)]
    handlers: dict[EntryName, Annotated[HandlerTable, AfterValidator(_whole)]]


def _without_plugins() -> TypeAdapter[ConfigFile]:
    """Return the validator of one file.

    pydantic offers each validator to plugins, which any installed package can have.  Their code does not belong into a
    daemon of root.  An empty module in the place of pydantic's loader saves the import of importlib.metadata and email,
    with which it looks for plugins.  A pydantic whose loader has another name imports them, and finds no plugins.
    """
    saved = os.environ.get(_PLUGINS)
    os.environ[_PLUGINS] = "__all__"
    loader = ModuleType(_PLUGIN_LOADER)
    vars(loader)["get_plugins"] = tuple
    replaced = sys.modules.setdefault(_PLUGIN_LOADER, loader) is loader
    try:
        return TypeAdapter(ConfigFile)
    finally:
        if replaced:
            del sys.modules[_PLUGIN_LOADER]
        if saved is None:
            del os.environ[_PLUGINS]
        else:
            os.environ[_PLUGINS] = saved


FILE = _without_plugins()
"""The validator of one file's tables."""
