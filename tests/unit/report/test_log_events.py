"""docs/logging.md lists every event that the code can log, and no other; each kernel test checks the keys."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.log_events import documented, undocumented

import binfmtd

PACKAGE = Path(binfmtd.__file__).parent
AFTER_THE_LEVEL = {"log", "once", "log_gathered", "_log_at_once"}  # once: after the key
SAYS = {"debug", "info", "warning", "error"} | AFTER_THE_LEVEL
TABLES = {"_PAST", "REPAIRED"}


def events_of(tree: ast.AST) -> Iterator[str]:
    """Yield the constants that a log method is called with, and those in a table of events."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            named = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            place = named in AFTER_THE_LEVEL
            event = node.args[place] if named in SAYS and len(node.args) > place else None
            if isinstance(event, ast.Constant):
                yield str(event.value)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in TABLES:
            yield from (str(value.value) for value in ast.walk(node.value) if isinstance(value, ast.Constant))


def test_the_page_is_complete() -> None:
    """The page lists each event once, in alphabetical order, and no other; all are snake_case."""
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    assert {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)} >= SAYS
    logged = {event for tree in trees for event in events_of(tree)}
    assert logged == documented().keys()
    assert list(documented()) == sorted(documented())
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", event) for event in logged)


def test_what_the_page_lacks_is_found() -> None:
    """An event, a level or a key that the page lacks is found; each kernel test checks each line in this way."""
    line = {"event": "watch_lost", "level": "warning", "timestamp": "2026", "pass": "a-1"}
    assert undocumented(line) is None
    assert undocumented(line | {"event": "watch_found"}) == "no event watch_found"
    assert undocumented(line | {"level": "debug"}) == "watch_lost at level debug"
    assert undocumented(line | {"entry": "one"}) == "watch_lost with entry"
