"""Any bytes that binfmtd reads give a value or one clear error, without a traceback and in bounded time."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.any_input import SEEDS, TARGETS
from support.instance import Instance
from support.many import Command, run_all

SIZE = 1 << 18
DEADLINE_SECONDS = 60  # each; a step that takes quadratic time takes much longer
# Each unit fills a file, alone and in every frame.
UNITS = (
    *("\n", " ", "\t", "a", "é", "#", "\\", '"', "'", '"\\', "'a", '"""', "'''", "0", "1_", "[", "{", "[[a]]\n", "{a="),
    *(
        "a.",
        '"a".',
        "'a' . ",
        "a=1\n",
        "[a]\n",
        "a,",
        "'a',",
        "':E::a::/a:\n",
        ":a:E::a::/a:\n",
        ":\n",
        "*a",
        "F",
        "1h",
    ),
    *(r"\x41", r"\040", "package a\n", "magic a\n", "mask 00\n", '{"a":', "- ", "1 2 3:4 / / rw - a b c\n"),
)
FRAMES = (
    *("{}", "a = {}", "a = [{}]", "[{}a]", "resync = '{}'", "architectures = [{}]", "architectures = ['{}']"),
    *(
        "keep = ['{}']",
        "include = ['/{}']",
        "[handlers.a]\ninterpreter = '/a'\nmagic = '{}'",
        "[emulators]\nentry='{}'",
    ),
    *("[handlers.a]\ninterpreter = '/a'\nextension = 'a'\nflags = '{}'", "[handlers.'{}']", "[emulators.'{}']", "{}=1"),
)


def mutated(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Return random bytes, recombined pieces of the valid texts, and valid texts with a part replaced."""
    lines = sorted({piece for seed in seeds for piece in (seed, *seed.splitlines(keepends=True), *seed.split())})
    pieces = st.one_of(st.sampled_from(lines), st.binary(max_size=8), st.sampled_from([b"\n", b" ", b"=", b'"', b"."]))
    cut = st.sampled_from(seeds).flatmap(
        lambda seed: st.tuples(st.integers(0, len(seed)), st.integers(0, len(seed)), st.binary(max_size=8)).map(
            lambda cut: seed[: cut[0]] + cut[2] + seed[cut[1] :]
        )
    )
    return st.one_of(st.binary(max_size=200), st.lists(pieces, max_size=12).map(b"".join), cut)


@pytest.mark.parametrize("name", TARGETS)
def test_anything_is_a_value_or_an_error(name: str) -> None:
    """Every parser returns a value or its error for random bytes, pieces of valid texts and altered valid texts."""

    @given(data=mutated(SEEDS[name]))
    @example(data=b"")
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * 2000) + " = 1",
        "resync = " + ("{" + ".".join("a" * 8) + " = ") * 200 + "1" + "}" * 200,
        "resync = " + "[" * 200 + "]" * 200,
        "[" * 100_000,
        "a = " + "{a = " * 100_000,
        "a = " + "1" * 5000,
        "[handlers.a]\npriority = " + "9" * 4000,
        "resync = '" + "a" * 100_000 + "'",
    ],
    ids=["key", "tables", "arrays", "open", "inline", "digits", "priority", "long"],
)
def test_what_is_nested_or_long(text: str) -> None:
    """Deep nesting overflows no stack, and an error does not repeat a long text whole."""
    TARGETS["toml"](text.encode())
    TARGETS["config_file"](text.encode())


SLOW = """
import json, signal, sys
from support.any_input import TARGETS
for name, frame, unit in json.load(sys.stdin):
    signal.alarm(%d)
    TARGETS[name](frame.replace("{}", unit * (%d // len(unit.encode()))).encode())
print("done")
"""


def test_nothing_takes_the_square_of_its_size(times: Callable[[int], int]) -> None:
    """No parser takes quadratic time for a file that repeats one unit, in any place of it."""
    cases = [(name, "{}", unit) for name in TARGETS for unit in UNITS]
    cases += [("toml", frame, unit) for frame in FRAMES for unit in UNITS]
    step = len(cases) // times(len(cases))
    done = subprocess.run(
        [sys.executable, "-c", SLOW % (DEADLINE_SECONDS, SIZE)],
        input=json.dumps(cases[:: step - (step % len(UNITS) == 0 and step > 1)]),  # not the same unit each time
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", (done.returncode, done.stderr)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 100_000_000)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


KINDS = (fifo, directory, unix_socket, device, huge, loop)
GOOD = "architectures = []\n[handlers.a]\nextension = 'a'\ninterpreter = '/usr/bin/true'\n"


def test_what_is_no_file_to_read(instance: Instance) -> None:
    """A FIFO, directory, socket, device, huge file or link loop as input is an error or a warning, never a hang."""
    with tempfile.TemporaryDirectory(prefix="binfmtd-") as name:  # a socket's path has at most 107 bytes
        commands: list[Command] = []
        wanted: list[tuple[int, str]] = []
        for kind in KINDS:
            base = Path(name) / kind.__name__
            for place in ("main", "conf", "included", "state"):
                (base / place / "conf.d").mkdir(parents=True, mode=0o755)
            for place in ("conf", "included", "state"):
                (base / place / "c.toml").write_text(GOOD)
            odd = [
                base / "main" / "c.toml",
                base / "conf" / "conf.d" / "x.toml",
                base / "included" / "conf.d" / "x.conf",
            ]
            odd += [
                base / "state" / each for each in ("ledger.json", "foreign.json", "native.json", "status.json", "lock")
            ]
            for path in odd:
                kind(path)
            (base / "included" / "c.toml").write_text(f"include = ['{base}/included/conf.d']\n{GOOD}")
            for words, status, says in (
                (["check", "--config", str(odd[0])], 78, str(odd[0])),
                (["check", "--config", str(base / "conf" / "c.toml")], 78, str(odd[1])),
                (["check", "--config", str(base / "included" / "c.toml")], 0, f"{odd[2]}: "),
                (["import", str(odd[2])], 1, str(odd[2])),
                (["import", "--format", "debian", str(odd[2])], 1, str(odd[2])),
                (["plan", "--config", str(base / "state" / "c.toml"), "--state-dir", str(base / "state")], 3, ""),
                (["status", "--state-dir", str(base / "state")], 1, str(base / "state")),
            ):
                if kind is directory and words[0] == "import":
                    continue  # of which the files are imported
                commands.append(("binfmtd", words, {}))
                wanted.append((status, says))
        for command, result, (status, says) in zip(commands, run_all(instance, commands), wanted, strict=True):
            assert (result.status, says in result.stderr) == (status, True), (command, result)
            assert "Traceback" not in result.stderr
