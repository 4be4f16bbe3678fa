"""The shell script, as far as it needs no kernel; tests/kernel runs it."""

import shlex

import pytest
from hypothesis import given
from support.registrations import NAMES, REGISTRATIONS

from binfmtd.errors import FormatError
from binfmtd.formats.binfmt_d import GENERATED
from binfmtd.formats.register_line import decode_line, to_bytes
from binfmtd.formats.shell import render_script
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Magic

A = Registration(Magic(b"A"), "/i", Flags.NONE)


@given(name=NAMES, registration=REGISTRATIONS)
def test_the_script_names_the_entry_and_its_line(name: str, registration: Registration) -> None:
    """Whatever quotes, blanks and bytes they contain, the shell gets the name and the line as two words."""
    try:
        text = render_script([(name, registration)])
    except FormatError:
        return
    call = text.split(b"exit 1\n")[1].removesuffix(b"exit $status\n")
    function, first, line = shlex.split(call.decode("utf-8", "surrogateescape"))
    assert (function, first) == ("register", name)
    assert decode_line(to_bytes(line)) == (name, registration)


def test_a_script_begins_with_its_origin() -> None:
    """A script begins with the line for /bin/sh and a comment that names binfmtd."""
    assert render_script([]).startswith(b"#!/bin/sh\n" + GENERATED + b"\n")


def test_a_long_magic_is_written_in_fewer_bytes() -> None:
    """If escapes make a line too long, bytes are written as they are."""
    long = A._replace(match=Magic(b"\xff" * 250, b"\xff" * 250))
    assert b"\xff" * 250 in render_script([("long", long)])


def test_what_the_kernel_could_not_take_is_refused() -> None:
    """An entry that the kernel could not take is an error that names the entry and the reason."""
    with pytest.raises(FormatError, match=r"entry 'a/b': .* must not contain"):
        render_script([("a", A), ("a/b", A)])
