"""The checks of `probe --deep`: the tables, the selection by names, and what a program's output means."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.deep_checks import (
    CHECK_NAMES,
    CHECKS,
    DEEP_PROGRAMS,
    DYNAMIC,
    FIXED,
    PIE,
    Check,
    Outcome,
    Step,
    can_cause,
    deep_programs,
    failed_step,
    fault_of_call,
    program_of,
)
from binfmtd.catalog.known_faults import KNOWN_FAULTS, Effect
from binfmtd.errors import FormatError

BY_ID = {fault.id: fault for fault in KNOWN_FAULTS}
BY_NAME = {check.name: check for check in CHECKS}


def test_programs() -> None:
    """Each platform is one of its architecture, and no two have one file."""
    assert all(program.platform in CATALOG[program.architecture].oci for program in DEEP_PROGRAMS)
    assert len({program.file for program in DEEP_PROGRAMS}) == len(DEEP_PROGRAMS)


def test_checks() -> None:
    """Names are unique, faults exist, and a check of a system call is named as that call and has Linux's version."""
    assert len(set(CHECK_NAMES)) == len(CHECKS) + 1
    assert CHECK_NAMES[-1] == DYNAMIC
    for check in CHECKS:
        assert check.build in (PIE, FIXED)
        assert set(check.faults) <= BY_ID.keys()
        assert bool(check.system_call) == (check.since > (0, 0))
        assert check.system_call in ("", check.name)


def test_each_known_missing_call_has_a_check() -> None:
    """A system call that an emulator is known to lack has a check."""
    assert {fault.system_call for fault in KNOWN_FAULTS} - {""} <= {check.system_call for check in CHECKS}


@pytest.mark.parametrize(
    ("names", "platforms"),
    [
        (["arm64"], ["arm64"]),
        (["arm"], ["arm/v7", "arm/v6"]),
        (["linux/arm/v6"], ["arm/v6"]),
        (["arm/7"], ["arm/v7"]),
        (["armhf"], ["arm/v7", "arm/v6"]),
        (["arm/v8"], ["arm/v7", "arm/v6"]),
        (["amd64/v3", "x86_64"], ["amd64"]),
        (["s390x", "i386"], ["386", "s390x"]),
    ],
)
def test_selection(names: list[str], platforms: list[str]) -> None:
    """Any name of an architecture selects its platforms; a variant selects its own one, if there is one."""
    assert [program.platform for program in deep_programs(names)] == [f"linux/{name}" for name in platforms]


def test_all() -> None:
    """Without names, all platforms are selected."""
    assert deep_programs([]) == DEEP_PROGRAMS


def test_names_without_programs() -> None:
    """An architecture without programs is an error that lists those with programs; so is an unknown one."""
    with pytest.raises(FormatError, match="no programs for alpha: name one of x86_64, aarch64, arm, i386, ppc64le"):
        deep_programs(["arm64", "alpha"])
    with pytest.raises(FormatError, match="unknown architecture"):
        deep_programs(["arm46"])


def test_program_of() -> None:
    """The fields of an ELF header lead to the programs of that architecture."""
    for each in DEEP_PROGRAMS:
        header = CATALOG[each.architecture].header
        found = program_of(header.bits, header.byte_order, header.e_machine)
        assert found is not None
        assert found.architecture == each.architecture
    assert program_of(64, "big", 62) is None


@pytest.mark.parametrize(
    ("output", "step"),
    [
        ("openat2\t026\n", Step("openat2", 38)),
        ("the thread pointer\t000\n", Step("the thread pointer", 0)),
        ("noise\nwait4\t00a\nmore\t001\n", Step("wait4", 10)),
        ("openat2\t26\n", None),
        ("openat2 026\n", None),
        ("", None),
    ],
)
def test_output(output: str, step: Step | None) -> None:
    """The first line that has a step and a number counts; any other output names no step."""
    assert failed_step(output) == step


@given(st.text())
def test_any_output(output: str) -> None:
    """No output is an error, and no step has a line break or more than a hundred characters."""
    step = failed_step(output)
    assert step is None or (re.fullmatch(r"[^\t\n]{1,100}", step.text) and 0 <= step.errno < 4096)


def test_faults_of_calls() -> None:
    """A missing call is a fault only for the architectures whose programs are known to fail."""
    assert fault_of_call("openat2", "s390x") is BY_ID["qemu-no-openat2"]
    assert fault_of_call("faccessat2", "s390x") is None
    assert fault_of_call("faccessat2", "loongarch64") is BY_ID["qemu-no-faccessat2"]
    assert fault_of_call("clone3", "aarch64") is None


def test_causes() -> None:
    """A crash can have any fault that crashes such a program; another failure only a fault that its check names."""
    brk, loader = BY_ID["qemu-arm64-brk"], BY_ID["qemu-arm64-ldconfig"]
    assert can_cause(brk, BY_NAME["heap"], crashed=False)
    assert not can_cause(brk, BY_NAME["memory"], crashed=False)
    assert can_cause(brk, BY_NAME["memory"], crashed=True)
    assert not can_cause(brk, BY_NAME[FIXED], crashed=True)
    assert can_cause(loader, BY_NAME[FIXED], crashed=True)
    assert not can_cause(BY_ID["qemu-upx"], BY_NAME["memory"], crashed=True)
    for fault in KNOWN_FAULTS:
        if fault.effect is not Effect.CRASH:
            assert not can_cause(fault, Check(DYNAMIC), crashed=True)


def test_outcomes() -> None:
    """Programs fail only for a failed check, or for a missing system call that they are known to need."""
    assert {outcome for outcome in Outcome if outcome.is_failure} == {Outcome.FAILS, Outcome.MISSING}
