"""Names of versions in the store, and the paths of their files."""

import pytest

from binfmtd.errors import FormatError
from binfmtd.model.emulator_version import STORE, check_version, interpreter_pattern, version_of


@pytest.mark.parametrize("name", ["9.2.2", "10", "qemu-v9.2.2-52", "8.1.5+b1", "sid_2026", "a" * 64])
def test_names(name: str) -> None:
    check_version(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "-x", "system", "a" * 65, "ä", "a\n"])
def test_other_names(name: str) -> None:
    """A name is one part of a path, is no option, and no hidden file."""
    with pytest.raises(FormatError):
        check_version(name)


def test_paths() -> None:
    path = interpreter_pattern(STORE, "9.2.2").replace("{name}", "arm")
    assert path == "/var/lib/binfmtd/emulators/9.2.2/qemu-arm"
    assert version_of(path, STORE) == "9.2.2"
    assert version_of("/usr/bin/qemu-arm", STORE) is None
    assert version_of("/usr/bin/qemu-arm", "") is None
    assert version_of(f"{STORE}/a-file", STORE) is None
    assert version_of(f"{STORE}-other/9.2.2/qemu-arm", STORE) is None
