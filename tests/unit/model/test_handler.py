import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.errors import FormatError
from binfmtd.model.handler import Flags, check_name


@pytest.mark.parametrize(
    ("letters", "printed"),
    [("", ""), ("F", "F"), ("FP", "PF"), ("FCOP", "POCF"), ("O", "O"), ("C", "OC"), ("CF", "OCF"), ("PP", "P")],
)
def test_flags_read_in_any_order_and_print_as_the_kernel_prints_them(letters: str, printed: str) -> None:
    """Flags are printed as POCF, the kernel's order, and C brings O along (seen on Linux 6.18)."""
    assert Flags.parse(letters).letters == printed


@given(letters=st.text(alphabet="POCF"))
def test_what_is_printed_is_read_back(letters: str) -> None:
    """Flags are read back from the letters that they are printed as."""
    flags = Flags.parse(letters)
    assert Flags.parse(flags.letters) == flags


@pytest.mark.parametrize("letters", ["x", "f", "FX", "T", " "])
def test_an_unknown_flag_is_refused_by_name(letters: str) -> None:
    """An unknown flag is refused by name, even if a newer kernel may have it."""
    with pytest.raises(FormatError, match="is not one of P, O, C, F"):
        Flags.parse(letters)


@pytest.mark.parametrize(
    "name", ["a", "qemu-arm", "with space", "back\\slash", "l\udce4t", "x" * 255, ".hidden", "...", "Register"]
)
def test_a_name_that_the_kernel_takes_is_taken(name: str) -> None:
    """A name may have up to 255 bytes of nearly any value, UTF-8 or not."""
    check_name(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "1 to 255 bytes"),
        ("x" * 256, "1 to 255 bytes"),
        ("\u00e4" * 128, "1 to 255 bytes"),
        (".", "reserved by binfmt_misc"),
        ("..", "reserved by binfmt_misc"),
        ("register", "reserved by binfmt_misc"),
        ("status", "reserved by binfmt_misc"),
        ("a/b", "must not contain"),
        ("a\nb", "must not contain"),
        ("a\0b", "must not contain"),
    ],
)
def test_a_name_that_cannot_be_an_entry_is_refused(name: str, says: str) -> None:
    """A name is refused if it has too many bytes, belongs to the kernel, or would end a path or a line."""
    with pytest.raises(FormatError, match=says):
        check_name(name)
