"""Guesses at the tool that registered an entry, by its interpreter and flags."""

import pytest

from binfmtd.catalog.tools import looks_like
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension


@pytest.mark.parametrize(
    ("interpreter", "flags", "tool"),
    [
        ("/init", "PF", "WSL"),
        ("/usr/libexec/qemu-binfmt/aarch64-binfmt-P", "OPF", "Debian's qemu-user-binfmt"),
        ("/usr/lib/binfmt-support/run-detectors", "", "update-binfmts"),
        ("/usr/bin/qemu-aarch64-static", "F", "multiarch/qemu-user-static, or a distribution's qemu-user-static"),
        ("/usr/bin/qemu-x86_64", "CPF", "tonistiigi/binfmt"),
        ("/usr/bin/qemu-arm", "CF", "linuxkit/binfmt, docker/binfmt or tonistiigi/binfmt"),
        ("/usr/bin/qemu-arm", "F", None),  # ours, or that of a program with the same choice
        ("/opt/qemu-arm", "CF", None),
        ("/usr/bin/python3", "", None),
    ],
)
def test_looks_like(interpreter: str, flags: str, tool: str | None) -> None:
    """Each known tool is recognised by interpreter and flags; the result is None if any program could be it."""
    kernels = Flags.parse(flags) | (Flags.O if "C" in flags else Flags.NONE)
    assert looks_like(Registration(Extension("x"), interpreter, kernels)) == tool


def test_an_entry_that_cannot_be_parsed() -> None:
    """An entry that this version cannot parse belongs to no known tool."""
    assert looks_like(None) is None
