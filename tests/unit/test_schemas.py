"""The JSON schemas of docs/schemas agree with the code, with docs/json.md and with each other.

tests/kernel/test_json.py and ``support.cli.run`` compare them with what the commands print.
"""

import argparse
import copy
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import schemas
from support.cli import CHECKOUT, run

from binfmtd.catalog.deep_checks import CHECK_NAMES, DEEP_PROGRAMS, Outcome
from binfmtd.cli.commands.emulators import SUBCOMMANDS
from binfmtd.cli.commands.export import FORMATS
from binfmtd.cli.main import COMMANDS, module_of
from binfmtd.daemon.reporting.incidents import MOST_NAMES
from binfmtd.daemon.reporting.recent_events import LENGTH
from binfmtd.daemon.trigger import Trigger
from binfmtd.model.drift import Act, Drift
from binfmtd.model.execution import Passed
from binfmtd.model.finding import Level, Section
from binfmtd.report import seal, status
from binfmtd.report.status_json import SCHEMA, SHAPE, fits

jsonschema = pytest.importorskip("jsonschema", reason="takes jsonschema, which the extra test installs")

PAGE = CHECKOUT / "docs" / "json.md"
KERNEL_TESTS = CHECKOUT / "tests" / "kernel" / "test_json.py"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
# Documents that only some options of a command print, or another command than binfmtd.
BY_OPTION = {"history", "probe-deep", "undo", "binfmt"}


def parts(schema: Any, place: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each part of a schema that describes a value, with its place."""
    if not isinstance(schema, dict):
        return
    yield place, schema
    for key in ("properties", "$defs"):
        for name, each in schema.get(key, {}).items():
            yield from parts(each, f"{place}/{key}/{name}")
    for key in ("items", "additionalProperties"):
        yield from parts(schema.get(key), f"{place}/{key}")


def examples() -> dict[str, list[Any]]:
    """Return the documents that docs/json.md shows: name of the schema -> its examples."""
    sections = re.split(r"(?m)^### ", PAGE.read_text(encoding="utf-8"))[1:]
    blocks = {section.partition("\n")[0]: re.findall(r"(?ms)^```json\n(.*?)^```$", section) for section in sections}
    return {name: [json.loads(block) for block in found] for name, found in blocks.items()}


def allowed(name: str, place: str) -> list[Any]:
    """Return the values that one place of a schema allows."""
    part = schemas.schema(name)
    for key in place.split("/"):
        part = part[key]
    values: list[Any] = part["enum"]
    return values


@pytest.mark.parametrize("name", schemas.names())
def test_it_is_a_schema(name: str) -> None:
    """The file is a valid schema of draft 2020-12, named after itself."""
    schema = schemas.schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert (schema["$schema"], schema["title"]) == (DRAFT, name)


@pytest.mark.parametrize("name", schemas.names())
def test_each_object_is_closed(name: str) -> None:
    """An object with names that we choose has no others, requires only names that it has, and each is described."""
    for place, part in parts(schemas.schema(name)):
        if "properties" not in part:
            continue
        assert part["additionalProperties"] is False, place
        assert set(part["required"]) <= set(part["properties"]), place
        undescribed = [key for key, each in part["properties"].items() if not {"description", "$ref"} & each.keys()]
        assert undescribed == [], place


@pytest.mark.parametrize("name", schemas.names())
def test_each_unit_is_named(name: str) -> None:
    """A number whose key names a unit has that unit in its description."""
    units = {"_us": "microseconds", "_ms": "milliseconds", "seconds": "seconds", "bytes": "bytes"}
    for place, part in parts(schemas.schema(name)):
        numeric = re.search("integer|number", str(part.get("type")))
        for ending, unit in units.items():
            if numeric and place.endswith(ending):
                assert unit in part["description"], place


def test_equal_definitions() -> None:
    """Definitions of the same name are equal in all files: each file can be used alone."""
    found: dict[str, Any] = {}
    for name in schemas.names():
        for key, definition in schemas.schema(name).get("$defs", {}).items():
            assert found.setdefault(key, definition) == definition, (name, key)
    assert {"action", "happened", "tried"} <= found.keys()


@pytest.mark.parametrize(
    ("name", "place", "values"),
    [
        ("status", "properties/state", status.STATES),
        ("status", "properties/seal/properties/state", seal.STATES),
        ("status", "properties/last_pass/properties/trigger", Trigger),
        ("status", "$defs/handler/properties/state", status.HANDLER_STATES),
        ("plan", "$defs/action/properties/action", Act),
        ("plan", "$defs/action/properties/drift", Drift),
        ("doctor", "$defs/section", [section.replace(" ", "_") for section in Section]),
        ("doctor", "properties/findings/items/properties/level", set(Level) - {Level.UNSEEN}),
        ("explain", "$defs/step/properties/passed_over/items/properties/because", Passed),
        ("export", "properties/format", FORMATS),
        ("probe-deep", "properties/platforms/items/properties/checks/items/properties/check", CHECK_NAMES),
        ("probe-deep", "properties/platforms/items/properties/checks/items/properties/outcome", Outcome),
    ],
    ids=lambda value: value.rpartition("/")[2] if isinstance(value, str) else "",
)
def test_words(name: str, place: str, values: Any) -> None:
    """The schema allows exactly the words that the code has."""
    assert set(allowed(name, place)) == {str(value) for value in values}


def test_the_drifts_of_the_history() -> None:
    """A row of the history has one or several kinds of drift, separated by commas, and no other words."""
    pattern = schemas.schema("status")["$defs"]["happened"]["properties"]["drift"]["pattern"]
    assert all(re.search(pattern, drift) for drift in Drift)
    assert re.search(pattern, ",".join(Drift))
    assert not re.search(pattern, "missing,")
    assert not re.search(pattern, "other")


def test_limits() -> None:
    """The longest lists are as long as the code makes them, and eight platforms have deep checks."""
    schema = schemas.schema("status")
    assert schema["properties"]["history"]["maxItems"] == schemas.schema("history")["maxItems"] == LENGTH
    assert schema["$defs"]["happened"]["properties"]["entries"]["maxItems"] == MOST_NAMES
    assert schema["properties"]["foreign"]["maxItems"] == status.FOREIGN_LISTED
    assert schema["properties"]["schema"]["const"] == SCHEMA
    assert len(DEEP_PROGRAMS) == 8
    assert "all eight" in schemas.schema("probe-deep")["properties"]["platforms"]["description"]


def test_the_readers_of_the_status() -> None:
    """The schema requires each key that our own commands require, and the example is a status that they read."""
    schema = schemas.schema("status")
    assert SHAPE.keys() | {"schema"} == {*schema["required"]}  # read_status compares this one by itself
    (example,) = examples()["status"]
    assert fits(example, SHAPE)


def with_json(parser: argparse.ArgumentParser) -> bool:
    return any("--json" in action.option_strings for action in parser._actions)  # noqa: SLF001


def command_lines() -> Iterator[list[str]]:
    """Yield a command line with --json for each command and subcommand that takes it."""
    for command in COMMANDS:
        parser = importlib.import_module(module_of(command)).parser()
        if with_json(parser):
            yield ["binfmtd", command, "--json"]
        for subcommand in SUBCOMMANDS if command == "emulators" else ():
            yield ["binfmtd", command, subcommand, "--json"]


def test_each_command() -> None:
    """Each command that takes --json has a schema, and no schema is without a command."""
    found = {schemas.name_of(line) for line in command_lines()}
    assert found | BY_OPTION == {*schemas.names()}
    assert not found & BY_OPTION


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("/bin/python -m binfmtd plan --json", "plan"),
        ("nsenter -m -- env A=b binfmtd --json --config x", "apply"),
        ("docker exec binfmtd binfmtd status NAME --json", "status"),
        ("binfmtd status --history --json", "history"),
        ("binfmtd status --watch --json", None),
        ("binfmtd status", None),
        ("binfmtd probe --deep --json arm", "probe-deep"),
        ("binfmtd emulators prune --dry-run --json", "emulators-remove"),
        ("binfmtd sandbox -- binfmtd arch --json", None),
        ("binfmtd sandbox --emulators a --json -- true", "sandbox-emulators"),
        ("git clone /work/binfmtd x", None),
    ],
)
def test_the_schema_of_a_command_line(line: str, name: str | None) -> None:
    """Tests find the schema of a command line, also behind other commands."""
    assert schemas.name_of(line.split()) == name


def test_the_schema_of_what_was_undone() -> None:
    """The document decides between what `apply` or `export` did and what it undid."""
    assert schemas.name_of(["binfmtd", "apply", "--json"], {"removed": [], "persistent": None}) == "undo"


def test_each_output_is_compared() -> None:
    """A command with a document that does not fit fails the test that runs it; one that fits does not."""
    printing = [sys.executable, "-c", "import sys; print(sys.argv[1])"]
    run([*printing, '{"actions": []}', "binfmtd", "plan", "--json"])
    with pytest.raises(AssertionError, match=r"plan\.schema\.json"):
        run([*printing, '{"actions": [], "more": 1}', "binfmtd", "plan", "--json"])


def test_the_page_has_each_document() -> None:
    """docs/json.md has a section with one example for each schema, and a link to its file."""
    assert {name: len(found) for name, found in examples().items()} == dict.fromkeys(schemas.names(), 1)
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in schemas.names() if f"](schemas/{name}.schema.json)" not in text] == []


@pytest.mark.parametrize("name", schemas.names())
def test_the_example(name: str) -> None:
    """The example of docs/json.md fits its schema."""
    assert [schemas.problems(example, name) for example in examples()[name]] == [[]]


def changed(document: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    """Return a copy of which the object, or the first object of the array, is changed."""
    altered = copy.deepcopy(document)
    change(altered[0] if isinstance(altered, list) else altered)
    return altered


@pytest.mark.parametrize("name", schemas.names())
def test_a_difference_is_found(name: str) -> None:
    """A key of another name, a key that is missing and a value of another type do not fit."""
    (example,) = examples()[name]
    first = example[0] if isinstance(example, list) else example
    assert schemas.problems(changed(example, lambda row: row.update(unknown=1)), name)
    assert schemas.problems(changed(example, lambda row: row.update(dict.fromkeys(first, 1.5))), name)
    without = [copy.deepcopy(example) for _ in first]
    for document, key in zip(without, first, strict=True):
        (document[0] if isinstance(document, list) else document).pop(key)
    if name != "emulators-verify":  # its keys are names of versions
        assert any(schemas.problems(document, name) for document in without)


def test_a_time_without_a_zone_is_found() -> None:
    """A time has its zone, and is a time."""
    (example,) = examples()["status"]
    for at in ("2026-01-02T03:04:05", "yesterday"):
        altered = copy.deepcopy(example)
        altered["config"]["loaded_at"] = at
        assert len(schemas.problems(altered, "status")) == 1


def test_the_kernel_tests_have_each_document() -> None:
    """tests/kernel/test_json.py compares a real document with each schema."""
    compared = re.findall(r'checked\(\s*"([a-z-]+)"', KERNEL_TESTS.read_text(encoding="utf-8"))
    assert {*compared} == {*schemas.names()}
