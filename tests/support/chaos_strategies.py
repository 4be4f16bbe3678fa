"""The values that the chaos test draws: few names, matches and interpreters, so that collisions are the rule."""

from hypothesis import strategies as st

from support.chaos_model import Handler, Kind, Policy

KINDS = (
    Kind(b"AB"),
    Kind(b"A"),
    Kind(b"A\0", b"\xff\0"),  # takes the same as A
    Kind(b"B", offset=1),
    Kind(b"\0:\n\\\xff", b"\xff\xff\xff\xff\xf0", 2),
    Kind(extension="jar"),
    Kind(extension="odd text"),
)
PROGRAMS = {
    "ab": b"AB",
    "ac": b"AC",
    "xb": b"XB",
    "special": b"zz\0:\n\\\xf7",
    "ab.jar": b"AB",
    "x.jar": b"none",
    "ab.odd text": b"XB",
    "nobody's": b"nobody takes this",
}
NAMES = ("a", "with blank", "back\\slash", "\u0142\u00e9:", "l" * 250)  # the last has a digest for a helper's name
OURS = ("plain", "other", "link")
THEIRS = ("theirs", "theirs too")
FOREIGN = ("WSLInterop", "WSL late", "raw\udcff\\name", "python3.13", ".hidden")
BAD = ("architectures = [", 'unmanaged = "perhaps"\n', "[handlers.a]\nmagic = 'x'\n", "\0")

names = st.sampled_from(NAMES)
policies = st.builds(
    Policy,
    unmanaged=st.sampled_from(["keep", "keep", "remove"]),
    keep=st.sampled_from([(), ("python3*",), ("*a*",)]),
    restore=st.sampled_from([("WSL*",), ("WSL*", "raw*"), ()]),
    shadowed=st.sampled_from(["report", "outrank"]),
    on_stop=st.sampled_from(["keep", "remove"]),
    settle=st.sampled_from(["20ms", "5ms", "0ms"]),
    stand_ins=st.sampled_from(["permanent", "permanent", "temporary"]),
)


def handlers(interpreters: tuple[str, ...]) -> st.SearchStrategy[Handler]:
    return st.builds(
        Handler,
        st.sampled_from(KINDS),
        st.sampled_from(interpreters),
        st.sampled_from(["", "F", "PF", "POCF"]),
        st.sampled_from([0, 0, 1, -1]),
        st.sampled_from([True, True, True, False]),
    )


declared = handlers(OURS)
others = handlers(THEIRS)
foreign = st.sampled_from(FOREIGN)
numbers = st.integers(0, 19)  # an index into the existing entries
moments = st.sampled_from([0.0, 0.001, 0.002, 0.005, 0.010, 0.021, 0.025])  # seconds
mostly_not = st.sampled_from([False, False, True])
there_at_first = st.dictionaries(foreign, others)
declared_at_first = st.dictionaries(names, declared, min_size=3)
