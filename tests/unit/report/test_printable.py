import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.report.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("qemu-arm", "qemu-arm"),
        ("with space", "with space"),
        ("gr\u00fcn", "gr\u00fcn"),
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("l\udce4t", "l\\xe4t"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u00a0b", "a\\xa0b"),
        ("\x7f", "\\x7f"),
        ("", ""),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    """Escaped are control characters, raw bytes, what turns the writing around and odd blanks, and nothing else."""
    assert printable(text) == shown


@given(raw=st.binary(max_size=50))
def test_whatever_the_kernel_holds_can_be_shown(raw: bytes) -> None:
    """Any bytes as a name become text that is printable, can be encoded, and stands on one line."""
    shown = printable(raw.decode("utf-8", "surrogateescape"))
    assert shown.isprintable()
    assert shown.encode("utf-8").decode("utf-8") == shown


@given(text=st.text(max_size=50))
def test_any_text_can_be_shown(text: str) -> None:
    """Any text becomes printable, also with characters that no kernel would hold."""
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
