"""From one file's text to its tables, or to one error that names file, key and remedy.

Each file is checked separately before the merge, so an error names the file that contains it.
"""

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from binfmtd.catalog.names import did_you_mean
from binfmtd.config.architecture_words import mistakes
from binfmtd.config.schema import (
    BY_ARCHITECTURE,
    FILE,
    SETTINGS,
    ArchitectureTable,
    ConfigFile,
    EmulatorsTable,
    HandlerTable,
    LabelsTable,
    MetricsTable,
    shown,
)
from binfmtd.config.tables import dotted, tables
from binfmtd.errors import ConfigError


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
        return FILE.validate_python(content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        problems.sort(key=_explains_no_other)
        found = [
            *map(_explain, problems),
            *mistakes(words if isinstance(words := content.get("architectures"), list) else ()),
        ]
        raise ConfigError.of([f"{file}: {key}: {reason}" for key, reason in found]) from error


def _explains_no_other(problem: ErrorDetails) -> bool:
    """Return False for a misspelt key or architecture, which comes first: it explains another one that is missing."""
    return problem["type"] != "extra_forbidden" and problem["loc"][-1:] != ("[key]",)


_KEYS: Mapping[tuple[str, int], type] = {
    ("", 1): ConfigFile,
    ("metrics", 2): MetricsTable,
    ("labels", 2): LabelsTable,
    ("emulators", 2): EmulatorsTable,
    ("emulators", 3): ArchitectureTable,
    ("handlers", 3): HandlerTable,
}

_SETTINGS = (
    "an emulator's settings belong to its version: make one with `binfmtd emulators configure VERSION --name NAME "
    "QEMU_CPU=...`, and write version = 'NAME'"
)

_ABOVE = "it belongs to no table: write it above the first [table] of the file"

_WANTED = {
    "string_type": "a string, in quotes",
    "int_type": "a whole number, without quotes",
    "bool_type": "true or false, without quotes",
    "list_type": 'an array, like ["a", "b"]',
    "dict_type": "a table",
}


def _explain(problem: ErrorDetails) -> tuple[str, str]:
    """Return key and reason of a problem, in the config's words."""
    location, value, kind = _written(problem), problem["input"], problem["type"]
    if kind == "value_error":
        if len(location) > 2 and location[-1] == "[key]":  # pydantic's mark for a key of a mapping
            location = location[:-1]
        reason = str(problem["ctx"]["error"])
    elif kind == "extra_forbidden":
        table = _KEYS["" if len(location) == 1 else str(location[0]), len(location)]
        known = [key for key in table.__annotations__ if key != BY_ARCHITECTURE]
        hint = (
            (_SETTINGS if location[0] == "emulators" and SETTINGS in location else "")
            or (_ABOVE if len(location) > 1 and location[-1] in _KEYS["", 1].__annotations__ else "")
            or did_you_mean(str(location[-1]), known)
            or f"the valid keys are {', '.join(known)}"
        )
        reason = f"unknown key: {hint}"
    elif kind == "enum":
        reason = f"{shown(value)} is not valid: write {problem['ctx']['expected']}"
    elif kind == "too_short":
        reason = "is empty: give at least one item, or remove the key"
    elif kind == "greater_than_equal":
        reason = f"{shown(value)} is too small: write {problem['ctx']['ge']} or more"
    elif kind == "less_than":
        reason = f"{shown(value)} is too large: write {problem['ctx']['lt'] - 1} or less"
    elif kind == "too_long":
        reason = f"has more than {problem['ctx']['max_length']} items: write fewer"
    else:
        reason = f"{shown(value)} must be {_WANTED[kind]}" if kind in _WANTED else f"{shown(value)}: {problem['msg']}"
    return dotted(*location), reason


def _written(problem: ErrorDetails) -> tuple[str | int, ...]:
    """Return the place of a problem as in the file, without ``BY_ARCHITECTURE``."""
    first, *others = problem["loc"] or ("",)
    return (first, *others[1:]) if first == "emulators" and others[:1] == [BY_ARCHITECTURE] else problem["loc"]
