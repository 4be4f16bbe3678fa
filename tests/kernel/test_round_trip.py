"""Handler -> registration line -> kernel -> entry file -> value: nothing changes on the way."""

from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from support.instance import Instance

from binfmtd.errors import FormatError
from binfmtd.formats.entry_file import parse_entry
from binfmtd.formats.register_line import decode_line, encode_line
from binfmtd.model.handler import RESERVED_NAMES, Flags, Registration
from binfmtd.model.match import HEAD_SIZE, Extension, Magic

SETTINGS = settings(
    max_examples=150,
    deadline=None,  # the machine is shared
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# Raw bytes, as in the kernel; bytes that a directory entry or a line cannot contain are left out.
_names = (
    st.binary(min_size=1, max_size=255)
    .filter(lambda name: not set(name) & set(b"/\0\n"))
    .map(lambda name: name.decode("utf-8", "surrogateescape"))
    .filter(lambda name: name not in RESERVED_NAMES)
)
_paths = (
    st.binary(max_size=200)
    .filter(lambda path: not set(path) & set(b"\0\n"))
    .map(lambda path: "/" + path.decode("utf-8", "surrogateescape"))
)
_extensions = (
    st.binary(min_size=1, max_size=60)
    .filter(lambda text: not set(text) & set(b"/\0\n"))
    .map(lambda text: Extension(text.decode("utf-8", "surrogateescape")))
)


@st.composite
def _magics(draw: st.DrawFn) -> Magic:
    magic = draw(st.binary(min_size=1, max_size=120))
    mask = draw(st.none() | st.binary(min_size=len(magic), max_size=len(magic)))
    return Magic(magic, mask, draw(st.integers(0, HEAD_SIZE - len(magic))))


# With F the kernel opens the interpreter at once, so it has to exist.
_pinning = st.builds(
    Registration,
    st.one_of(_magics(), _extensions),
    st.just("/usr/bin/true"),
    st.lists(st.sampled_from("POC")).map(lambda letters: Flags.parse("F" + "".join(letters))),
)
_registrations = _pinning | st.builds(
    Registration,
    st.one_of(_magics(), _extensions),
    _paths,
    st.lists(st.sampled_from("POC")).map(lambda letters: Flags.parse("".join(letters))),
)


@SETTINGS
@given(name=_names, registration=_registrations)
def test_survives_the_kernel(module_instance: Instance, name: str, registration: Registration) -> None:
    """A line written to `register` reads back as the same value, whatever bytes it contains."""
    try:
        line = encode_line(name, registration)
    except FormatError:
        reject()  # too long, or without a usable delimiter: the unit tests define when
    assert decode_line(line) == (name, registration)
    module_instance.register(line)
    try:
        with open(module_instance.path(name), "rb") as file:
            assert parse_entry(file.read()) == (True, registration)
    finally:
        module_instance.remove(name)
