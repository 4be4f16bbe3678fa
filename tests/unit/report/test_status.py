"""The status: one row for each handler, and the worst of their states."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from binfmtd.catalog.architectures import CATALOG
from binfmtd.errors import StateError
from binfmtd.model.desired import DesiredState, PassedOver, Unavailable, UnavailableReason
from binfmtd.model.drift import Act, Action, Drift, Plan
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Magic
from binfmtd.report.status import (
    FOREIGN_LISTED,
    Troubles,
    foreign_part,
    handler_states,
    lacking,
    unready,
    whole_state,
)
from binfmtd.report.status_json import FILE_NAME, fits, read_status, write_status

SAYS = Registration(Magic(b"A"), "/usr/bin/qemu-arm", Flags.P | Flags.F)
A = Handler("a", SAYS, 3, architecture="arm")
MISSING = Action(Act.REGISTER, "a", Drift.MISSING, "the entry is missing", A)
NOTHING = ObservedState()
QUIET = Plan()


def row(
    handler: Handler = A, observed: ObservedState = NOTHING, planned: Plan = QUIET, troubles: Troubles | None = None
) -> dict[str, Any]:
    (only,) = handler_states(DesiredState((handler,)), observed, planned, troubles or Troubles())
    return only


def test_a_row_has_all_of_a_handler() -> None:
    """A row has all values of a handler, with the flags as the kernel prints them."""
    assert row(troubles=Troubles(repairs={"a": 4})) == {
        "name": "a",
        "architecture": "arm",
        "state": "registered",
        "reason": "",
        "interpreter": "/usr/bin/qemu-arm",
        "candidates": [],
        "flags": "PF",
        "priority": 3,
        "repairs": 4,
    }


def test_interpreters_that_are_not_used() -> None:
    """The row has the interpreters that exist, and the reasons why earlier ones of the list are not used."""
    passed_over = {"a": (PassedOver("/fex", "it does not run programs: it was killed"), PassedOver("/s/1", "missing"))}
    desired = DesiredState((A,), candidates={"a": ("/fex", "/usr/bin/qemu-arm")}, passed_over=passed_over)
    (only,) = handler_states(desired, NOTHING, QUIET, Troubles())
    assert only["state"] == "registered"
    assert only["candidates"] == ["/fex", "/usr/bin/qemu-arm"]
    reason = "/fex is not used: it does not run programs: it was killed; /s/1 is not used: missing"
    assert only["reason"] == reason


STOOD_IN = ObservedState((Entry(".binfmtd~a", 1, enabled=True, registration=SAYS),))


@pytest.mark.parametrize(
    ("changes", "state", "says"),
    [
        ({"handler": A._replace(enabled=False)}, "disabled", "enabled = false"),
        ({"troubles": Troubles(failed={"a": "ENOENT: install it"}, contended={"a"})}, "failed", "ENOENT: install it"),
        ({"troubles": Troubles(contended={"a"})}, "registered", ""),
        (
            {"troubles": Troubles(failed={".binfmtd~a": "EINVAL"})},
            "registered",
            "its stand-in cannot be registered (EINVAL)",
        ),
        ({"troubles": Troubles(contended={"a"}), "planned": Plan((MISSING,))}, "contended", "growing intervals"),
        (
            {"troubles": Troubles(contended={"a"}), "planned": Plan((MISSING,)), "observed": STOOD_IN},
            "stand_in",
            "growing intervals",
        ),
        ({"planned": Plan(served_elsewhere={"a": "x"})}, "served_elsewhere", "entry x serves it"),
        ({"planned": Plan((MISSING,)), "observed": STOOD_IN}, "stand_in", "the entry is missing"),
        ({"planned": Plan((MISSING,))}, "waiting", "the entry is missing"),
        ({"planned": Plan(shadowed={"a": "x"})}, "shadowed", "entry x takes its files"),
        ({"planned": Plan((MISSING._replace(entry="b"),)), "observed": STOOD_IN}, "registered", ""),
        (
            {"handler": A._replace(registration=SAYS._replace(flags=Flags.P))},
            "registered",
            "not checked: without flag F each program needs /usr/bin/qemu-arm in its own root",
        ),
    ],
)
def test_the_states_of_a_handler(changes: dict[str, Any], state: str, says: str) -> None:
    """Each state has a reason by which a reader can act."""
    found = row(**changes)
    assert found["state"] == state
    assert says in found["reason"]


def unavailable(standing: UnavailableReason) -> Unavailable:
    paths = ("/usr/bin/qemu-arm", "/usr/bin/qemu-arm-static")
    return Unavailable("h", Magic(b"held"), standing, "no executable file at /i", "arm", paths, Flags.F, 1)


def test_an_interpreter_that_runs_no_programs() -> None:
    """A registered handler whose interpreter is known to run nothing says so."""
    (only,) = handler_states(DesiredState((A,), fails={"a": "the file is empty"}), NOTHING, QUIET, Troubles())
    assert (only["state"], only["reason"]) == (
        "registered",
        "/usr/bin/qemu-arm does not run programs: the file is empty",
    )


@pytest.mark.parametrize("standing", [UnavailableReason.WAITING, UnavailableReason.REFUSED])
def test_what_cannot_be_had_now_has_a_row_too(standing: UnavailableReason) -> None:
    """A handler that waits or is refused has a row, with the reason and the first interpreter that would do."""
    (only,) = handler_states(DesiredState(unavailable=(unavailable(standing),)), NOTHING, QUIET, Troubles())
    assert (only["state"], only["interpreter"]) == (standing.value, "/usr/bin/qemu-arm")
    assert only["reason"].startswith("no executable file at /i")


def test_what_all_would_have_brought_has_no_row() -> None:
    """An architecture from "all" without an emulator has no row."""
    assert (
        handler_states(DesiredState(unavailable=(unavailable(UnavailableReason.ABSENT),)), NOTHING, QUIET, Troubles())
        == []
    )


@pytest.mark.parametrize(
    ("standing", "registration", "states"),
    [
        (UnavailableReason.WAITING, SAYS, ["registered"]),
        (UnavailableReason.ABSENT, SAYS, ["registered"]),
        (UnavailableReason.REFUSED, SAYS, ["refused"]),
        (UnavailableReason.WAITING, SAYS._replace(flags=Flags.NONE), ["waiting"]),
        (UnavailableReason.WAITING, SAYS._replace(interpreter="/other"), ["waiting"]),
        (UnavailableReason.WAITING, None, ["waiting"]),
        (UnavailableReason.ABSENT, None, []),
    ],
)
def test_a_pinned_file_still_serves(
    standing: UnavailableReason, registration: Registration | None, states: list[str]
) -> None:
    """With F the file that was opened runs on when its path is gone; the reason has both."""
    observed = ObservedState((Entry("h", 1, enabled=True, registration=registration),))
    found = handler_states(DesiredState(unavailable=(unavailable(standing),)), observed, QUIET, Troubles())
    assert [each["state"] for each in found] == states
    assert all("still runs the previous file" in each["reason"] for each in found if each["state"] == "registered")


ARM = Registration(CATALOG["arm"].match, "/theirs", Flags.F)


@pytest.mark.parametrize(
    ("entries", "state", "says"),
    [
        ([], "waiting", "run `apt-get install qemu-user`; if you removed it on purpose, reload the daemon"),
        ([Entry("h", 1, enabled=True, registration=SAYS)], "registered", "still runs the previous file"),
        ([Entry("h", 1, enabled=False, registration=SAYS)], "waiting", "apt-get install qemu-user"),
        ([Entry(".binfmtd~h", 1, enabled=True, registration=SAYS)], "stand_in", "still runs the previous file"),
        ([Entry("theirs", 1, enabled=True, registration=ARM)], "served_elsewhere", "entry theirs serves it"),
        ([Entry("theirs", 1, enabled=False, registration=ARM)], "waiting", "apt-get install qemu-user"),
        # Its interpreter may be gone as well.
        (
            [Entry("theirs", 1, enabled=True, registration=ARM._replace(flags=Flags.NONE))],
            "waiting",
            "apt-get install qemu-user",
        ),
        ([Entry("theirs", 1, enabled=True, registration=None)], "waiting", "apt-get install qemu-user"),
    ],
)
def test_an_emulator_that_is_gone(entries: list[Entry], state: str, says: str) -> None:
    """An architecture from "all" whose emulator is gone waits for it, unless an entry serves it."""
    desired = DesiredState(unavailable=(unavailable(UnavailableReason.LOST),))
    (only,) = handler_states(desired, ObservedState(tuple(entries)), QUIET, Troubles())
    assert only["state"] == state
    assert says in only["reason"]


@pytest.mark.parametrize(
    ("desired", "entries", "lacks"),
    [
        (DesiredState(unavailable=(unavailable(UnavailableReason.ABSENT),)), [], True),
        (
            DesiredState(unavailable=(unavailable(UnavailableReason.ABSENT),)),
            [Entry("theirs", 1, enabled=True, registration=ARM)],
            False,
        ),
        (
            DesiredState(unavailable=(unavailable(UnavailableReason.ABSENT),)),
            [Entry("h", 1, enabled=True, registration=SAYS)],
            True,
        ),
        (
            DesiredState(unavailable=(unavailable(UnavailableReason.LOST),)),
            [Entry("h", 1, enabled=True, registration=SAYS)],
            True,
        ),
        (DesiredState(unavailable=(unavailable(UnavailableReason.LOST),)), [], True),
        (DesiredState(unavailable=(unavailable(UnavailableReason.ABSENT)._replace(architecture=None),)), [], True),
        (DesiredState((A,), (unavailable(UnavailableReason.ABSENT),)), [], False),
        (DesiredState(unavailable=(unavailable(UnavailableReason.WAITING),)), [], False),
        (DesiredState(), [], False),
    ],
)
def test_no_handler_at_all(desired: DesiredState, entries: list[Entry], lacks: bool) -> None:
    """If "all" finds no emulator, the state is waiting, with what to install; an empty declaration lacks nothing."""
    observed = ObservedState(tuple(entries))
    rows = handler_states(desired, observed, QUIET, Troubles())
    found = lacking(desired, observed)
    assert (found is not None) is lacks
    if found is not None:
        assert "apt-get install qemu-user" in found
        assert whole_state(rows, QUIET, Troubles(), lacks=True) == "waiting"
        serves = bool(entries)
        assert bool(unready({"problem": None, "mount": {}, "handlers": rows, "lacking": found})) is not serves


def test_rows_come_by_name() -> None:
    """Rows are in order of names, not of ranks, since people read them."""
    desired = DesiredState((A._replace(name="z"), A._replace(name="b")), (unavailable(UnavailableReason.WAITING),))
    assert [each["name"] for each in handler_states(desired, NOTHING, QUIET, Troubles())] == ["b", "h", "z"]


@pytest.mark.parametrize(
    ("states", "planned", "troubles", "whole"),
    [
        ([], QUIET, Troubles(), "converged"),
        (["registered", "disabled", "served_elsewhere"], QUIET, Troubles(), "converged"),
        (["registered", "waiting"], QUIET, Troubles(), "waiting"),
        (["waiting"], Plan((MISSING,)), Troubles(), "drifting"),
        (["waiting"], Plan((MISSING,)), Troubles(contended={"status"}), "contended"),
        (["contended"], Plan((MISSING,)), Troubles(contended={"a"}), "contended"),
        (["stand_in"], Plan((MISSING,)), Troubles(contended={"a"}), "drifting"),
        (["refused"], Plan((MISSING,)), Troubles(contended={"a"}), "degraded"),
        (["failed"], QUIET, Troubles(), "degraded"),
        (["registered"], QUIET, Troubles(problem="no mount"), "degraded"),
    ],
)
def test_the_whole_is_the_worst_of_its_parts(states: list[str], planned: Plan, troubles: Troubles, whole: str) -> None:
    """The whole state is the worst one: degraded, contended, drifting, waiting, converged, in this order."""
    rows = [{"name": name, "state": state} for name, state in zip("abc", states, strict=False)]
    assert whole_state(rows, planned, troubles) == whole


def test_of_many_foreign_entries_some_are_listed_and_all_are_counted() -> None:
    """The newest foreign entries are listed, and the rest is only counted, so the document stays small."""
    entries = [Entry(f"entry-{number}", number, number % 3 != 0, None) for number in range(16_600)]
    part = foreign_part(entries, (11_066, 5_534))
    assert [row["name"] for row in part["foreign"]] == [entry.name for entry in entries[:FOREIGN_LISTED]]
    assert part["foreign"][:2] == [{"name": "entry-0", "enabled": False}, {"name": "entry-1", "enabled": True}]
    assert part["foreign_count"] == {"enabled": 11_066, "disabled": 5_534}


@pytest.mark.parametrize(
    ("value", "shape", "fit"),
    [
        (1, int, True),
        (True, int, False),
        (None, (str, None), True),
        ("", (str, None), True),
        (0, (str, None), False),
        ([], [str], True),
        (["a", 1], [str], False),
        ("a", [str], False),
        ({"a": 1, "more": 2}, {"a": int}, True),
        ({}, {"a": (int, None)}, False),
        ([], {}, False),
    ],
)
def test_a_shape(value: object, shape: object, fit: bool) -> None:
    """A document fits a shape with the types of JSON; more keys than in the shape are no fault, fewer are."""
    assert fits(value, shape) == fit


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("\udcff", "damaged"),
        ("[" * 10000, "damaged"),
        ("[]", "damaged"),
        ('{"schema": 2}', "another version"),
        ("{}", "another version"),
        ('{"schema": 1, "state": "converged"}', "another version of binfmtd: restart the daemon"),
    ],
)
def test_a_status_that_cannot_be_parsed(tmp_path: Path, text: str, says: str) -> None:
    """A status that cannot be parsed is an error in one line that names the file."""
    (tmp_path / FILE_NAME).write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(StateError, match=says) as caught:
        read_status(str(tmp_path))
    assert str(caught.value).startswith(str(tmp_path / FILE_NAME))


def test_a_status_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    """For a missing status the error names the command that makes one; a FIFO in its place does not block."""
    with pytest.raises(StateError, match="start `binfmtd run`"):
        read_status(str(tmp_path))
    os.mkfifo(tmp_path / FILE_NAME)
    with pytest.raises(StateError, match="is a FIFO: put a regular file there"):
        read_status(str(tmp_path))


def test_a_status_is_plain_json(tmp_path: Path) -> None:
    """The status is ASCII, whatever the names are, so programs like jq can read it without binfmtd."""
    write_status(str(tmp_path), {"foreign": ["gr\u00fcn"]})
    assert json.loads((tmp_path / FILE_NAME).read_bytes().decode("ascii"))["foreign"] == ["gr\u00fcn"]
