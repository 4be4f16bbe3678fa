import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.errors import FormatError
from binfmtd.model.handler import NAME_BYTES, check_name
from binfmtd.model.stand_in import check_handler_name, is_stand_in, stand_in_name

# As the kernel may have them: bytes other than NUL and '/', newline left out as check_name does.
RAW = st.binary(min_size=1, max_size=NAME_BYTES).map(
    lambda raw: bytes(b if b not in b"\0/\n" else b"_"[0] for b in raw)
)
LONG = st.integers(240, NAME_BYTES).flatmap(
    lambda size: st.binary(min_size=3, max_size=3).map(lambda b: b.hex() * size)
)
NAMES = RAW.map(lambda raw: raw.decode("utf-8", "surrogateescape")) | st.builds(
    lambda text, size: text[:size], LONG, st.integers(240, NAME_BYTES)
)


def size(name: str) -> int:
    return len(name.encode("utf-8", "surrogateescape"))


@given(name=NAMES)
def test_a_stand_in_is_a_name_that_the_kernel_takes(name: str) -> None:
    """A stand-in's name has at most 255 bytes, is hidden from ls, and identifies it as a stand-in."""
    helper = stand_in_name(name)
    check_name(helper)
    assert helper.startswith(".")
    assert is_stand_in(helper)


@given(one=NAMES, other=NAMES)
def test_distinct_names_have_distinct_stand_ins(one: str, other: str) -> None:
    """Two handlers never have a stand-in of the same name."""
    assert (stand_in_name(one) == stand_in_name(other)) == (one == other)


def test_a_short_name_stays_readable_and_a_long_one_becomes_a_digest() -> None:
    """The limit is 255 bytes with the prefix; beyond it stand 16 hexadecimal digits of the SHA-256."""
    assert stand_in_name("qemu-arm") == ".binfmtd~qemu-arm"
    assert stand_in_name("x" * 246) == ".binfmtd~" + "x" * 246
    # printf %0247d | tr 0 x | sha256sum
    assert stand_in_name("x" * 247) == ".binfmtd~d081fd14046d4a49"
    assert size(stand_in_name("\u00e4" * 123)) == 255
    assert size(stand_in_name("\u00e4" * 123 + "x")) == 25


def test_nothing_else_looks_like_a_stand_in() -> None:
    """Another program's hidden entry does not count as a stand-in."""
    assert not any(map(is_stand_in, ["qemu-arm", ".binfmtd", ".binfmtd-x", "x.binfmtd~y", ".hidden"]))


@pytest.mark.parametrize("name", [".binfmtd~x", stand_in_name("x" * 247), "register", "", "a/b"])
def test_a_handler_may_not_be_called_so(name: str) -> None:
    """A handler may not have the name of a stand-in, or one that the kernel refuses."""
    with pytest.raises(FormatError, match="name"):
        check_handler_name(name)


def test_a_handler_may_have_any_other_name() -> None:
    """A handler may have any other name, even a hidden one."""
    check_handler_name(".binfmtd")
