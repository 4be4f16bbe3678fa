"""A script's first line; tests/kernel/test_explain_oracle.py compares the result with the kernel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.model.match import HEAD_SIZE
from binfmtd.model.shebang import Shebang, parse_shebang


def long_line(size: int, end: bytes) -> bytes:
    """Return a first line whose path has its last byte before byte ``size``, and then this."""
    return b"#!/" + b"x" * (size - 3) + end


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"#!/bin/sh\n", Shebang("/bin/sh")),
        (b"#! \t/bin/sh \t\nmore", Shebang("/bin/sh")),
        (b"#!/usr/bin/env  -S a  b \n", Shebang("/usr/bin/env", "-S a  b")),
        (b"#!/bin/sh", Shebang("/bin/sh")),
        (b"#!/bin/sh -e", Shebang("/bin/sh", "-e")),
        (b"#!/bin/sh\r\n", Shebang("/bin/sh\r")),
        (b"#!/bin/sh -e\r\n", Shebang("/bin/sh", "-e\r")),
        (b"#!/bin/sh\0-e\n", Shebang("/bin/sh")),
        (b"#!/bin/sh -e\0-x\n", Shebang("/bin/sh", "-e")),
        (b"#!/bin/sh ", Shebang("/bin/sh", "")),
        (b"#!/bin/sh \0-e\n", Shebang("/bin/sh", "")),
        (b"#!sh\n", Shebang("sh")),
        (b"#!\xff\n", Shebang("\udcff")),
        (b"#!", Shebang("")),
        (b"#!\0/bin/sh\n", Shebang("")),
        (b"#!\n", None),
        (b"#! \t\n/bin/sh\n", None),
        (b"#!" + b" " * 254, None),
        (b" #!/bin/sh\n", None),
        (b"\x7fELF", None),
        (b"", None),
        (long_line(254, b"\n"), Shebang("/" + "x" * 251)),
        (long_line(255, b"\n"), Shebang("/" + "x" * 252)),
        (long_line(255, b" "), Shebang("/" + "x" * 252)),
        (long_line(254, b" -argument\n"), Shebang("/" + "x" * 251)),
        (long_line(253, b" -argument\n"), Shebang("/" + "x" * 250, "-")),
        (long_line(256, b"\n"), None),
        (long_line(300, b"\n"), None),
    ],
)
def test_first_line(head: bytes, expected: Shebang | None) -> None:
    """A first line has one path and one argument, without blanks at the ends; a path that may be cut off is none."""
    assert parse_shebang(head) == expected


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_any_text(text: bytes, more: bytes) -> None:
    """No text after ``#!`` is an error, and nothing after byte 256 matters; path and argument contain no NUL."""
    found = parse_shebang(b"#!" + text)
    head = (b"#!" + text)[:HEAD_SIZE]
    assert found == parse_shebang(head) == parse_shebang(head.ljust(HEAD_SIZE, b"\0") + more)
    if found is not None:
        assert "\0" not in found.interpreter + (found.argument or "")
