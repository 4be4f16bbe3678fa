"""An attacker who may write somewhere on the way to an interpreter never gets his own program to serve.

He runs as another user, and swaps links, directories and files as fast as he can while entries are registered.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.exec_loop import ExecLoop
from support.instance import Instance
from support.programs import exits_with, install
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")

Times = Callable[[int], int]

ATTACKER = 1000
GOOD, EVIL = 7, 66
# Each gets the place that counts, a good thing and an evil one, and swaps them for ever; the first swap is told.
BEGIN = f"""
import os, sys
os.setgroups([])
os.setresgid({ATTACKER}, {ATTACKER}, {ATTACKER})
os.setresuid({ATTACKER}, {ATTACKER}, {ATTACKER})
place, good, evil = sys.argv[1:]
beside = place + ".beside"
told = False
def tell():
    global told
    if not told:
        print("swapped", flush=True)
        told = True
"""
LINK = """
while True:
    for target in (good, evil):
        os.symlink(target, beside)
        os.rename(beside, place)
    tell()
"""
DIRECTORY = """
while True:
    os.symlink(os.path.dirname(good), place)
    os.unlink(place)
    os.rename(os.path.dirname(evil), place)
    os.rename(place, os.path.dirname(evil))
    tell()
"""
FILE = """
while True:
    try:
        os.rename(place, beside)
        os.rename(evil, place)
        tell()
        os.rename(place, evil)
        os.rename(beside, place)
    except OSError:
        pass
"""


@pytest.fixture
def instance(private_instances: None) -> Iterator[Instance]:  # noqa: ARG001  it skips
    """Yield an instance in which other users are who they are."""
    with Instance(everybody=True) as instance:
        yield instance


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a directory that every user reaches, with good and evil in it: pytest's own is root's alone."""
    directory = Path(tempfile.mkdtemp(prefix="binfmtd-"))
    directory.chmod(0o755)
    for name, status in (("good", GOOD), ("evil", EVIL)):
        (directory / name).mkdir(mode=0o755)
        install(directory / name / "interpreter", exits_with(status))
    for path in (directory / "evil", directory / "evil" / "interpreter"):
        os.chown(path, ATTACKER, ATTACKER)
    (directory / "sticky").mkdir()
    (directory / "sticky").chmod(0o1777)
    yield directory
    shutil.rmtree(directory)


@contextmanager
def attacker(code: str, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
    """Have him at work, beyond his first swap."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", BEGIN + code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def swapped(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "swapped\n"


def config(interpreter: Path) -> str:
    return f"""architectures = []
[handlers.one]
magic = 'one!'
interpreter = "{interpreter}"
flags = "F"
"""


@pytest.fixture
def program(place: Path) -> Path:
    """Yield what the handler is for."""
    return install(place / "program", b"one! and more")


def serves(instance: Instance, program: Path, status: int) -> bool:
    return instance.run([str(program)]).returncode == status


@pytest.mark.parametrize(
    ("code", "way"), [(LINK, "link"), (DIRECTORY, "directory/interpreter")], ids=["link", "directory"]
)
def test_who_owns_a_part_of_the_way(
    instance: Instance, tmp_path: Path, times: Times, place: Path, program: Path, code: str, way: str
) -> None:
    """300 looks: whatever he has in its place at that moment, nothing is registered, and the path is named."""
    interpreter = place / "sticky" / way
    owned = place / "sticky" / Path(way).parts[0]
    evil = place / "evil" / "interpreter"
    if code is DIRECTORY:  # he moves it within what is his
        (place / "sticky" / "evil").mkdir()
        evil = Path(shutil.copy(evil, place / "sticky" / "evil" / "interpreter"))
        os.chown(place / "sticky" / "evil", ATTACKER, ATTACKER)
        os.chown(evil, ATTACKER, ATTACKER)
    daemon = Daemon(instance, tmp_path / "daemon", config(interpreter))
    try:
        daemon.wait_ready()
        with attacker(code, owned, place / "good" / "interpreter", evil) as process:
            swapped(process)

            def look_again() -> None:
                generation = daemon.status()["config"]["generation"]
                daemon.reload()
                status = daemon.wait_status(lambda s: s["config"]["generation"] > generation)
                assert status["handlers"][0]["state"] in ("refused", "waiting")
                assert instance.names() == []

            def is_named() -> bool:
                look_again()  # which of the two it finds is chance
                return any(str(owned) in line["reason"] for line in daemon.logs("handler_refused"))

            for _ in range(times(300)):
                look_again()
            wait_until(is_named, what="a refusal that names what is his")
        assert not daemon.logs("entry_registered")
        if owned.is_symlink():
            owned.unlink()
        elif owned.exists():
            shutil.rmtree(owned)
        owned.symlink_to(place / "good" / ("interpreter" if code is LINK else ""))
        wait_until(lambda: instance.names() == ["one"], what="the entry, once the way is root's")
        assert serves(instance, program, GOOD)
    finally:
        daemon.close()


def test_a_directory_that_is_open_for_a_while(
    instance: Instance, tmp_path: Path, times: Times, place: Path, program: Path
) -> None:
    """200 times root opens it and the entry is removed: his program never serves, and the good one does afterwards.

    The mode alone raises no event, so what was judged before is not trusted blindly.
    """
    opened = place / "good"
    interpreter = opened / "interpreter"
    evil = opened / "evil"
    daemon = Daemon(instance, tmp_path / "daemon", config(interpreter))
    try:
        daemon.wait_ready()
        with ExecLoop(instance, program) as loop:
            for _ in range(times(200)):
                evil.write_bytes(exits_with(EVIL))
                evil.chmod(0o755)
                os.chown(evil, ATTACKER, ATTACKER)
                with attacker(FILE, interpreter, interpreter, evil) as process:
                    opened.chmod(0o777)
                    swapped(process)
                    instance.remove("one")
                    daemon.wait_status(lambda s: s["handlers"][0]["state"] in ("refused", "waiting"), "no handler")
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                opened.chmod(0o755)
                for each in opened.iterdir():
                    each.unlink()
                install(interpreter, exits_with(GOOD))
                wait_until(partial(serves, instance, program, GOOD), what="the good one")
                daemon.wait_status(lambda s: s["handlers"][0]["state"] == "registered", "the entry")
                wait_until(lambda: instance.names() == ["one"], what="the entry alone")
            outcomes = {outcome for outcome, _ in loop.stop()}
        assert outcomes <= {GOOD, "Exec format error"}
    finally:
        daemon.close()
