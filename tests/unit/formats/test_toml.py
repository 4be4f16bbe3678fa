"""Handlers as the config's TOML."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registrations import NAMES, REGISTRATIONS

from binfmtd.errors import FormatError
from binfmtd.formats.toml import Found, render_toml
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic
from binfmtd.model.stand_in import stand_in_name

A = Found("a", Registration(Magic(b"A"), "/i", Flags.NONE), "/etc/binfmt.d/a.conf:1")


@given(text=st.text(max_size=20), name=NAMES, registration=REGISTRATIONS)
def test_every_text_is_toml(text: str, name: str, registration: Registration) -> None:
    """With any text as origin, name or path the result is TOML, which has the same name and path."""
    try:
        written = render_toml([Found(name, registration, text)])
    except FormatError:
        return
    table = tomllib.loads(written)["handlers"]
    assert list(table) == [name]
    assert table[name]["interpreter"] == registration.interpreter


def test_as_people_write_it() -> None:
    """Escapes are in single quotes, a key is bare if possible, and only values that are not the default are written."""
    elf = Registration(Magic(b"\x7fELF'", b"\xff\xff\xff\xff\x00", 4), "/usr/bin/q", Flags.parse("FP"))
    dotted = Found('py"3.13', Registration(Extension("py"), "/opt/\u00e4 \u202e\U000e0001", Flags.NONE), "the\nkernel")
    assert render_toml([A, Found("elf", elf, "x:2", enabled=False), dotted]).split("architectures = []\n")[1] == (
        "\n# /etc/binfmt.d/a.conf:1\n"
        "[handlers.a]\n"
        "magic = 'A'\n"
        'interpreter = "/i"\n'
        "\n# x:2\n"
        "[handlers.elf]\n"
        r"magic = '\x7fELF\x27'"
        "\n"
        r"mask = '\xff\xff\xff\xff\x00'"
        "\n"
        "offset = 4\n"
        'interpreter = "/usr/bin/q"\n'
        'flags = "PF"\n'
        "enabled = false\n"
        "\n# the?kernel\n"
        r'[handlers."py\"3.13"]'
        "\n"
        'extension = "py"\n'
        'interpreter = "/opt/\u00e4 \\u202e\\U000e0001"\n'
    )


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (A._replace(name="\udcff"), "is not UTF-8"),
        (A._replace(registration=A.registration._replace(interpreter="/\udcff")), "is not UTF-8"),
        (A._replace(registration=A.registration._replace(match=Extension("\udcff"))), "is not UTF-8"),
        (A._replace(registration=A.registration._replace(match=Extension("tar.gz"))), "never matches"),
        (A._replace(registration=A.registration._replace(interpreter="i")), "absolute path"),
        (A._replace(name=stand_in_name("a")), "reserved for binfmtd's stand-ins"),
        (A._replace(name="a/b"), "must not contain"),
    ],
)
def test_what_the_config_could_not_hold_is_refused(found: Found, says: str) -> None:
    """An entry that the config could not hold is an error that names the entry and the reason."""
    with pytest.raises(FormatError) as caught:
        render_toml([A, found])
    assert str(caught.value).startswith(f"entry {found.name!r}: ")
    assert says in str(caught.value)
