"""The entries that a word of --uninstall selects."""

import pytest

from binfmtd.cli.compat.selection import select

NAMES = (
    "qemu-arm",
    "qemu-aarch64",
    "my-aarch64",
    "qemu-mips64el",
    "aarch64",
    "python3.13",
    "qemu-386-old",
    "WSLInterop",
    "WSLInterop-late",
    ".binfmtd~qemu-arm",
    "wine-s390x",
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", []),
        ("qemu-arm", [("qemu-arm", ["qemu-arm"])]),
        ("arm", [("arm", ["qemu-arm"])]),
        ("linux/arm/v7", [("arm", ["qemu-arm"])]),
        ("mips64le", [("mips64el", ["qemu-mips64el"])]),
        ("s390x", [("s390x", ["wine-s390x"])]),
        ("arm64", [("aarch64", ["aarch64"])]),  # equal to a name: not those that end in it
        ("riscv64", [("riscv64", [])]),
        ("386", [("i386", [])]),
        ("nonsense", [("nonsense", [])]),
        ("old", [("old", ["qemu-386-old"])]),
        ("qemu-a*", [("qemu-aarch64", ["qemu-aarch64"]), ("qemu-arm", ["qemu-arm"])]),
        ("qemu-[^a]*", [("qemu-386-old", ["qemu-386-old"]), ("qemu-mips64el", ["qemu-mips64el"])]),
        ("qemu-?rm", [("qemu-arm", ["qemu-arm"])]),
        ("python*", [("python3.13", ["python3.13"])]),
        ("WSLInterop", [("WSLInterop", [])]),
        ("WSL*", [("WSL*", [])]),
        ("late", [("late", [])]),
        (".binfmtd~qemu-arm", [(".binfmtd~qemu-arm", [])]),
        ("register,status", [("register", []), ("status", [])]),
        (",", []),
        ("arm,", [("arm", ["qemu-arm"])]),
        ("arm,qemu-arm", [("arm", ["qemu-arm"]), ("qemu-arm", ["qemu-arm"])]),
    ],
)
def test_words(words: str, expected: list[tuple[str, list[str]]]) -> None:
    """A word is QEMU's name for a platform, and a glob; if it matches no entry, it selects those that end in it.

    WSLInterop and stand-ins are never selected.
    """
    assert [(label, list(names)) for label, names in select(words, NAMES)] == expected


def test_a_star_means_all_that_may_go() -> None:
    """``*`` selects every entry but WSLInterop and stand-ins."""
    is_kept = {"WSLInterop", "WSLInterop-late", ".binfmtd~qemu-arm"}
    assert {name for _, names in select("*", NAMES) for name in names} == set(NAMES) - is_kept


def test_a_name_with_the_characters_of_a_glob() -> None:
    """If the glob matches nothing, the entry whose name equals the word is selected."""
    assert list(select("odd[1]", ["odd[1]", "x-odd[1]"])) == [("odd[1]", ("odd[1]",))]


def test_two_that_end_in_it() -> None:
    """If several names end in the word, all of them are selected, in one line."""
    assert list(select("arm64", ["b-aarch64", "a-aarch64"])) == [("aarch64", ("a-aarch64", "b-aarch64"))]
