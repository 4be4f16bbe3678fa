"""Names and registrations for hypothesis, with all that the kernel allows in them."""

from hypothesis import strategies as st

from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic

SPECIAL = "a:|,;@%+=~^!.\\x41 \u00e4\udcff"  # delimiters, escapes, blanks, what is and what is not UTF-8


def _text(maximum: int) -> st.SearchStrategy[str]:
    # Printable ASCII and what is special: a byte that only looks like an escape must come back as it was.
    return st.text(st.sampled_from(SPECIAL), min_size=1, max_size=maximum).map(_as_the_kernel_has_it)


def _as_the_kernel_has_it(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


NAMES = _text(80).filter(lambda name: name not in (".", ".."))
PATHS = _text(80).map(lambda path: "/" + path)
FLAGS = st.sampled_from([Flags.parse(letters) for letters in ("", "P", "O", "C", "F", "PF", "OF", "POCF")])


@st.composite
def _magics(draw: st.DrawFn) -> Magic:
    magic = draw(st.binary(min_size=1, max_size=40))
    mask = draw(st.none() | st.binary(min_size=len(magic), max_size=len(magic)))
    return Magic(magic, mask, draw(st.integers(0, 256 - len(magic))))


MATCHES = st.one_of(_magics(), _text(20).map(Extension))
REGISTRATIONS = st.builds(Registration, MATCHES, PATHS, FLAGS)
