"""An attacker who may write to part of an interpreter's path never gets his own program to serve.

He runs as another user, and swaps links, directories and files as fast as possible while entries are registered.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from support import Times
from support.daemon import Daemon
from support.exec_loop import ExecLoop
from support.instance import Instance
from support.pacing import BelowContention
from support.programs import exits_with, install
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")

ATTACKER = 1000
GOOD, EVIL = 7, 66
# Each script endlessly swaps a good file and an evil one at a path, and prints a line after its first swap.
BEGIN = f"""
import os, sys
os.setgroups([])
os.setresgid({ATTACKER}, {ATTACKER}, {ATTACKER})
os.setresuid({ATTACKER}, {ATTACKER}, {ATTACKER})
place, good, evil = sys.argv[1:]
beside = place + ".beside"
shown = False
def tell():
    global shown
    if not shown:
        print("swapped", flush=True)
        shown = True
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
    """Yield an instance in which all users have the same user ids as outside."""
    with Instance(everybody=True) as instance:
        yield instance


@pytest.fixture
def place(open_directory: Path) -> Path:
    """Return a directory that every user can reach, with a good and an evil interpreter."""
    for name, status in (("good", GOOD), ("evil", EVIL)):
        (open_directory / name).mkdir(mode=0o755)
        install(open_directory / name / "interpreter", exits_with(status))
    for path in (open_directory / "evil", open_directory / "evil" / "interpreter"):
        os.chown(path, ATTACKER, ATTACKER)
    (open_directory / "sticky").mkdir()
    (open_directory / "sticky").chmod(0o1777)
    return open_directory


@contextmanager
def attacker(code: str, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
    """Run this script of the attacker, and kill it at the end."""
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
    """Return a program that the handler takes."""
    return install(place / "program", b"one! and more")


def serves(instance: Instance, program: Path, status: int) -> bool:
    return instance.run([str(program)]).returncode == status


@pytest.mark.parametrize(
    ("code", "way"), [(LINK, "link"), (DIRECTORY, "directory/interpreter")], ids=["link", "directory"]
)
def test_who_owns_a_part_of_the_way(
    instance: Instance, tmp_path: Path, times: Times, place: Path, program: Path, code: str, way: str
) -> None:
    """While the attacker owns part of the path, nothing is registered in 300 scans, and the refusal names that part."""
    interpreter = place / "sticky" / way
    owned = place / "sticky" / Path(way).parts[0]
    evil = place / "evil" / "interpreter"
    if code is DIRECTORY:  # the attacker can move it only within his own directory
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
    """The attacker's program never serves while root opens the directory and the entry is removed, 200 times.

    Afterwards the good program serves. A change of mode alone raises no event, so an earlier judgement is not trusted.
    """
    opened = place / "good"
    interpreter = opened / "interpreter"
    evil = opened / "evil"
    daemon = Daemon(instance, tmp_path / "daemon", config(interpreter))
    try:
        daemon.wait_ready()
        pace = BelowContention()
        with ExecLoop(instance, program) as loop:
            for _ in range(times(200)):
                pace.wait()
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
                pace.repaired()
            outcomes = {outcome for outcome, _ in loop.stop()}
        assert outcomes <= {GOOD, "Exec format error"}
    finally:
        daemon.close()
