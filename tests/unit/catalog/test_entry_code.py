"""The machine code that extends an environment: it is what its source says, and its jump leads where it should."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.catalog.entry_code import AARCH64_SOURCE, ENTRY_CODE, X86_64_SOURCE
from binfmtd.errors import FormatError

TOOLS = {62: ("x86_64-linux-gnu-", X86_64_SOURCE), 183: ("aarch64-linux-gnu-", AARCH64_SOURCE)}


@pytest.mark.parametrize("machine", TOOLS)
def test_the_source(machine: int, tmp_path: Path) -> None:
    """The assembler of binutils makes the same bytes of the source."""
    prefix, source = TOOLS[machine]
    if missing := [tool for tool in ("as", "objcopy") if shutil.which(prefix + tool) is None]:
        pytest.skip(f"not here: {', '.join(prefix + tool for tool in missing)}")
    (tmp_path / "code.s").write_text(source)
    subprocess.run([f"{prefix}as", "-o", "code.o", "code.s"], cwd=tmp_path, check=True)
    subprocess.run([f"{prefix}objcopy", "-O", "binary", "-j", ".text", "code.o", "code"], cwd=tmp_path, check=True)
    assert (tmp_path / "code").read_bytes() == ENTRY_CODE[machine].code


@given(machine=st.sampled_from(sorted(TOOLS)), words=st.integers(-(1 << 24), 1 << 24))
def test_the_jump(machine: int, words: int) -> None:
    """A jump leads where it was asked to lead, and nothing but the jump differs."""
    code = ENTRY_CODE[machine]
    made = code.jumping(words * 4)
    assert code.target(made) == words * 4
    assert len(made) == len(code.code)
    assert code.is_in(made + b"more")
    assert sum(one != other for one, other in zip(made, code.code, strict=True)) <= 4


@pytest.mark.parametrize(
    ("machine", "distance"),
    [(62, (1 << 31) + 171), (62, -(1 << 31) + 170), (183, 1 << 28), (183, -(1 << 28)), (183, 6)],
)
def test_too_far(machine: int, distance: int) -> None:
    """A distance that no jump of the machine reaches is an error."""
    with pytest.raises(FormatError, match="no jump"):
        ENTRY_CODE[machine].jumping(distance)


def test_other_code() -> None:
    """Code that differs in one byte, other than the jump's distance, is not this code."""
    for code in ENTRY_CODE.values():
        for place in range(len(code.code)):
            changed = bytearray(code.code)
            changed[place] ^= 1
            in_the_distance = code.jump <= place < code.jump + 5
            assert in_the_distance or not code.is_in(bytes(changed))
        assert not code.is_in(code.code[:-1])
