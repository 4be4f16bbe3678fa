"""Every status that the daemon may write is shown by every reader of it."""

import argparse
import copy
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.cli.doctor.config_and_daemon import of_daemon
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.cli.status_view import Page, history_view, named_view, narrowed, problems_view, view
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.errors import StateError
from binfmtd.report.counts import Counts
from binfmtd.report.metrics import render_metrics
from binfmtd.report.page import render_page
from binfmtd.report.sentence import sentence
from binfmtd.report.status import HANDLER_STATES, STATES, unready
from binfmtd.report.status_json import SHAPE, read_status, write_status

TEXT = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=()), max_size=20)  # lone surrogates, too
TIMES = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat)  # noqa: DTZ001  hypothesis adds the zone
KEYS = {"at": TIMES, "first_at": TIMES, "loaded_at": TIMES, "state": st.sampled_from((*STATES, *HANDLER_STATES))}


def values(shape: Any, key: str = "") -> st.SearchStrategy[Any]:
    """Return a strategy for everything of this shape, with the key's own values if it has some."""
    if isinstance(shape, dict):
        return st.fixed_dictionaries({name: values(each, name) for name, each in shape.items()})
    if isinstance(shape, list):
        return st.lists(values(shape[0]), max_size=3)
    if isinstance(shape, tuple):
        return st.one_of([values(each, key) for each in shape])
    simple = {
        str: TIMES if key == "until" else KEYS.get(key, TEXT),
        bool: st.booleans(),
        int: st.integers(0, 10**9),
        float: st.floats(0, 1e9),
    }
    return st.none() if shape is None else simple[shape]


DOCUMENTS = values(SHAPE)
NOW = 1.8e9  # seconds since the epoch


def leaves(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place in a document."""
    if at:
        yield at
    pairs = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in pairs:
        yield from leaves(value, (*at, key))


@given(DOCUMENTS, st.none() | st.integers(1, 200), st.none() | st.integers(1, 60), st.none() | st.integers(0, 9))
def test_everything_shows_it(document: dict[str, Any], width: int | None, height: int | None, pid: int | None) -> None:
    """No reader fails on empty lists, nulls, odd names or any width, and the file returns the document unchanged."""
    with tempfile.TemporaryDirectory() as directory:
        write_status(directory, document)
        status = read_status(directory)
    assert status == {"schema": 1, **document}
    page = Page(NOW, width, height)
    lines = view(status, pid, page)
    assert height is None or len(lines) <= height
    lines += [*view(status, pid, page, everything=True), *problems_view(status, pid, page)]
    lines += named_view(narrowed(status, [row["name"] for row in status["handlers"][1:]]), page)
    assert all(line.isprintable() for line in (*lines, *history_view(status, page), sentence(status)))
    assert render_page(status, unready(status), NOW)
    assert render_metrics(status, Counts(0.0), ready=not unready(status))
    namespace = argparse.Namespace(config=None, mount=None, state_dir="/state")
    facts = HostFacts(None, writes=False)
    snapshot = Snapshot(namespace, "/mount", None, "", None, "/state", pid or 7, status, "", None, None, "", facts)
    assert next(each.check for each in of_daemon(snapshot)) == "runs"


@given(st.data())
def test_what_does_not_fit_is_damaged(data: st.DataObject) -> None:
    """A document with a value that no daemon writes is one error of the reading, so no reader meets it."""
    document = data.draw(DOCUMENTS.filter(lambda each: each["handlers"] and each["history"] and each["mount"]))
    damaged = copy.deepcopy(document)
    *path, last = data.draw(st.sampled_from(list(leaves(document))))
    at = damaged
    for key in path:
        at = at[key]
    at[last] = [[0]]
    with tempfile.TemporaryDirectory() as directory:
        write_status(directory, damaged)
        with pytest.raises(StateError, match=r"status\.json is damaged"):
            read_status(directory)
