"""The manual pages describe everything that exists: they are compared with the code itself."""

import argparse
import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from binfmtd.cli.compat import goflags
from binfmtd.cli.main import COMMANDS, module_of
from binfmtd.config.schema import (
    BY_ARCHITECTURE,
    ArchitectureTable,
    ConfigFile,
    EmulatorsTable,
    HandlerTable,
    LabelsTable,
    MetricsTable,
)
from binfmtd.errors import BinfmtdError

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "docs" / "man"
SOURCES = sorted((ROOT / "binfmtd").rglob("*.py"))
TABLES: dict[str, type] = {
    "metrics": MetricsTable,
    "labels": LabelsTable,
    "emulators": EmulatorsTable,
    "emulators.NAME": ArchitectureTable,
    "handlers.NAME": HandlerTable,
}


def page(name: str) -> str:
    return (MANUAL / f"{name}.md").read_text("utf-8")


def sections(text: str, level: str) -> dict[str, str]:
    """Return the text below each heading of one level: heading -> text."""
    parts = re.split(rf"(?m)^{level} (.+)$", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def section(name: str, heading: str) -> str:
    return sections(page(name), "##")[heading]


def terms(text: str) -> set[str]:
    """Return the terms that are described: the bold words of the lines that a description follows."""
    lines = re.findall(r"(?m)^(\S.*)\n:   ", text)
    return {word for line in lines for word in re.findall(r"\*\*(.+?)\*\*", line)}


def bold(text: str) -> set[str]:
    return set(re.findall(r"\*\*([^*\s]+)\*\*", text))


def test_commands() -> None:
    """Each command has its own part, in the order of `binfmtd --help`."""
    assert list(sections(section("binfmtd.8", "COMMANDS"), "###")) == list(COMMANDS)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return all options of a parser, and those of its subcommands."""
    found = {word for action in parser._actions for word in action.option_strings}  # noqa: SLF001
    choices = (action.choices for action in parser._actions)  # noqa: SLF001
    return found.union(*(options_of(each) for names in choices if isinstance(names, dict) for each in names.values()))


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of(command: str) -> None:
    """A command's part names exactly its options, and describes those that are not shared."""
    text = sections(section("binfmtd.8", "COMMANDS"), "###")[command]
    options = options_of(importlib.import_module(module_of(command)).parser())
    named = {word for word in bold(text) if word.startswith("--") and word != "--"}
    assert named == {word for word in options - {"-h", "--help"} if word.startswith("--")}
    assert named <= terms(text) | terms(section("binfmtd.8", "OPTIONS"))


def test_config_keys() -> None:
    """Each key of each table is described in the part of its table, and nothing else is."""
    described = sections(page("binfmtd.toml.5"), "##")
    for name, table in TABLES.items():
        assert terms(described[f"[{name}]"]) == set(table.__annotations__) - {BY_ARCHITECTURE}, name
    assert {f"[{name}]" for name in TABLES} == {heading for heading in described if heading.startswith("[")}
    top = {name for name in ConfigFile.__annotations__ if not any(name == each.partition(".")[0] for each in TABLES)}
    assert terms(described["KEYS"]) == top


def _errors(of: type[BinfmtdError]) -> Iterator[type[BinfmtdError]]:
    yield of
    for each in of.__subclasses__():
        yield from _errors(each)


def test_exit_statuses() -> None:
    """The exit status of each error is described, and each one that a command defines itself."""
    described = terms(section("binfmtd.8", "EXIT STATUS"))
    assert {str(error.exit_code) for error in _errors(BinfmtdError)} <= described
    for name in ("plan", "status"):
        module = importlib.import_module(f"binfmtd.cli.commands.{name}")
        own = {value for key, value in vars(module).items() if key.isupper() and isinstance(value, int)}
        assert own
        assert {str(value) for value in own} <= described


# Variables of other programs, which are not always read by a plain os.environ.get.
OTHERS = {"NO_COLOR", "NOTIFY_SOCKET", "JOURNAL_STREAM", "XDG_RUNTIME_DIR", "KUBERNETES_SERVICE_HOST", "container"}


def _variables() -> set[str]:
    """Return every variable of the environment that the code reads."""
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"\b(?:BINFMTD|QEMU)_[A-Z0-9_]+\b", node.value))
                found |= {node.value} & OTHERS
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.environ.pop"):
                found |= _values(node.args[0])
    return found


def _values(name: ast.expr) -> set[str]:
    """Return the name of a variable; for an f-string, as in listen_fds, the names that it makes."""
    if isinstance(name, ast.JoinedStr):
        assert ast.unparse(name) == "f'LISTEN_{key}'"
        return {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
    return {name.value} if isinstance(name, ast.Constant) and isinstance(name.value, str) else set()


def test_environment() -> None:
    """Each variable that the code reads is described by one of the two pages."""
    described = terms(section("binfmtd.8", "ENVIRONMENT")) | terms(section("binfmt.1", "ENVIRONMENT"))
    assert _variables() == described


@pytest.mark.parametrize("drop_in", ["tonistiigi", "linuxkit"])
def test_options_of_the_drop_ins(drop_in: str) -> None:
    """binfmt(1) describes each option of the images' command lines."""
    flags: tuple[goflags.Flag, ...] = importlib.import_module(f"binfmtd.cli.compat.{drop_in}").FLAGS
    (heading,) = (each for each in sections(page("binfmt.1"), "##") if each.lower().startswith(drop_in))
    described = {word.lstrip("-") for word in terms(section("binfmt.1", heading))}
    assert described == {flag.name for flag in flags}


@pytest.mark.parametrize("path", sorted(MANUAL.glob("*.md")), ids=lambda path: path.name)
def test_title(path: Path) -> None:
    """The first line of a page has the name and the section of its file, as man(1) shows them."""
    name, _, number = path.stem.rpartition(".")
    assert path.read_text("utf-8").startswith(f"# {name} {number} ")
