"""The JSON schemas of docs/schemas, and which one the output of a command line has to fit.

``support.cli.run`` compares each document that it gets from a command of binfmtd with ``--json``.  It does so only
where jsonschema is installed; the virtual machines of tests/kernels have none.
"""

import importlib
import json
import os
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from binfmtd.cli.main import COMMANDS

DIRECTORY = Path(__file__).parents[2] / "docs" / "schemas"
_SUFFIX = ".schema.json"
_MOST = 300  # characters of a problem: jsonschema's messages may contain the whole document
# Subcommands of `emulators` that print the document of another one.
_ALIKE = {"pull": "add", "import": "add", "configure": "add", "prune": "remove"}


def names() -> list[str]:
    """Return the names of all schemas."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in DIRECTORY.glob(f"*{_SUFFIX}"))


@cache
def schema(name: str) -> Any:
    return json.loads((DIRECTORY / f"{name}{_SUFFIX}").read_text(encoding="utf-8"))


@cache
def _validator(name: str) -> Any:
    """Return the validator of one schema; None where jsonschema is not installed."""
    try:
        jsonschema = importlib.import_module("jsonschema")
    except ImportError:
        return None
    formats = jsonschema.FormatChecker(formats=())
    formats.checks("date-time", raises=ValueError)(_is_time)
    return jsonschema.Draft202012Validator(schema(name), format_checker=formats)


def _is_time(value: object) -> bool:
    """Return True if a text is a time with its zone; values of other types are for the keyword ``type``."""
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def problems(document: Any, name: str) -> list[str]:
    """Return how a document differs from a schema: in each line the place, and what is wrong there."""
    return [f"{error.json_path}: {error.message}"[:_MOST] for error in _validator(name).iter_errors(document)]


def name_of(command: Sequence[str], document: Any = None) -> str | None:
    """Return the name of the schema of what a command line prints; None if that is no JSON document of binfmtd."""
    for place, word in enumerate(command):
        words = [*command[place + 1 :]]
        if os.path.basename(word) != "binfmtd" or not words or not (words[0] in COMMANDS or words[0].startswith("-")):
            continue
        own = words[: words.index("--")] if "--" in words else words
        if "--json" not in own or {"--watch", "--help", "-h"} & {*own}:
            return None
        return _of(own[0] if own[0] in COMMANDS else "apply", own[1:], document)
    return None


def _of(command: str, words: Sequence[str], document: Any) -> str:
    if command in ("apply", "export") and isinstance(document, dict) and "removed" in document:
        return "undo"
    if command == "status" and "--history" in words:
        return "history"
    if command == "probe" and "--deep" in words:
        return "probe-deep"
    if command == "sandbox":
        return "sandbox-emulators"
    if command == "emulators":
        return f"emulators-{_ALIKE.get(words[0], words[0])}"
    return command


def check_output(command: Sequence[str], output: str) -> None:
    """Assert that a document on stdout fits its schema."""
    words = [*map(os.fsdecode, command)]
    if not output or name_of(words) is None or _validator("status") is None:
        return
    document = json.loads(output)
    name = name_of(words, document)
    assert name is not None
    found = problems(document, name)
    assert not found, f"{' '.join(words)}: docs/schemas/{name}{_SUFFIX}: {found}"
