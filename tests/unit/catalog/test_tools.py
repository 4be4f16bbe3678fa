"""Who has registered an entry, guessed by what it says."""

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
        ("/usr/bin/qemu-arm", "F", None),  # ours, or somebody's who thinks as we do
        ("/opt/qemu-arm", "CF", None),
        ("/usr/bin/python3", "", None),
    ],
)
def test_looks_like(interpreter: str, flags: str, tool: str | None) -> None:
    """Each of the known tools by its interpreter and flags; nobody where anybody could have written it."""
    kernels = Flags.parse(flags) | (Flags.O if "C" in flags else Flags.NONE)
    assert looks_like(Registration(Extension("x"), interpreter, kernels)) == tool


def test_what_nobody_understands() -> None:
    """An entry that this version cannot read is nobody's."""
    assert looks_like(None) is None
