"""Commands that are killed (kill -9) at each of their steps, and at random moments: the store stays usable."""

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.layouts import Layout
from support.registry import Registry
from support.stores import ENVIRONMENT, StoreCli, emulators, three
from support.tars import Member

from binfmtd.cli.store.directory import Store

# Kills itself before the system call that the number says, of those about the store that Python audits (PEP 578).
KILLER = """
import os, signal, sys
left, store = int(sys.argv.pop(1)), sys.argv.pop(1)
def look(event, arguments):
    global left
    if (event == "open" or event.startswith(("os.", "shutil.", "subprocess."))) and store in str(arguments):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(look)
from binfmtd.cli.main import entry
entry()
"""
MOST_STEPS = 500


def killed(store: StoreCli, step: int, *arguments: str) -> bool:
    """Run a command, and kill it at this step; return False if it has ended before."""
    command = [sys.executable, "-c", KILLER, str(step), str(store.path), *store.command(*arguments)[3:]]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def usable(store: StoreCli) -> set[str]:
    """Check that all versions are as they were added, and that the next change removes what was left; return them."""
    there = Store(str(store.path))
    versions = set(there.names())
    assert [there.verify(name) for name in versions] == [[]] * len(versions)
    with there.preparing():
        assert len([name for name in store.hidden() if name != ".lock"]) == 1  # its own
    assert (store.hidden(), set(there.names())) == ([], versions)
    return versions


def expected(version: str) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in three(version).items()}


def test_import(store: StoreCli, tmp_path: Path) -> None:
    """Killed at any step, an import has added the version as a whole, or not at all; then it is run again."""
    source = emulators(tmp_path / "source", three("9.2.2"))
    store.checked("import", emulators(tmp_path / "old", three("8.1.5")))
    added = set[bool]()
    for step in range(MOST_STEPS):
        if not killed(store, step, "import", source):
            break
        versions = usable(store)
        assert versions in ({"8.1.5"}, {"8.1.5", "9.2.2"})
        added.add("9.2.2" in versions)
        if "9.2.2" in versions:
            assert store.checksums("9.2.2") == expected("9.2.2")
            Store(str(store.path)).remove("9.2.2")
    else:
        pytest.fail(f"an import has more than {MOST_STEPS} steps")
    assert step > 30
    assert added == {True, False}


def test_configure(store: StoreCli, tmp_path: Path) -> None:
    """Killed at any step, `configure` has added the version as a whole, or not at all, and the old one is as it was."""
    store.checked("import", emulators(tmp_path / "old", three("8.1.5")))
    added = set[bool]()
    for step in range(MOST_STEPS):
        if not killed(store, step, "configure", "8.1.5", "A=1", "--name", "set"):
            break
        versions = usable(store)
        assert versions in ({"8.1.5"}, {"8.1.5", "set"})
        added.add("set" in versions)
        if "set" in versions:
            Store(str(store.path)).remove("set")
    else:
        pytest.fail(f"it has more than {MOST_STEPS} steps")
    assert step > 30
    assert added == {True, False}
    assert store.checksums("8.1.5") == expected("8.1.5")


def test_remove(store: StoreCli, tmp_path: Path) -> None:
    """Killed at any step, a removal has removed the version as a whole, or not at all."""
    source = emulators(tmp_path / "source", three("9.2.2"))
    store.checked("import", source)
    there = set[bool]()
    for step in range(MOST_STEPS):
        if not killed(store, step, "remove", "9.2.2"):
            break
        versions = usable(store)
        there.add("9.2.2" in versions)
        if not versions:
            store.checked("import", source)
    else:
        pytest.fail(f"a removal has more than {MOST_STEPS} steps")
    assert there == {True, False}


def test_pull_at_random_moments(store: StoreCli, registry: Registry, layout: Layout) -> None:
    """Killed at a random moment of its time, with skopeo, a pull leaves no version or a whole one."""
    layer = [Member(f"usr/bin/{name}", data) for name, data in three("9.2.2").items()]
    layout.add("x", [*layer, Member("large", os.urandom(4 << 20))])
    image = registry.push(layout, "x", "killed:1")
    chosen = random.Random(21)  # noqa: S311  any numbers, but the same ones each time
    for _ in range(15):
        process = subprocess.Popen(
            store.command("pull", image, "--insecure"), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=-1
        )
        try:
            _, stderr = process.communicate(timeout=chosen.uniform(0.05, 1.0))
            assert (process.returncode, stderr) == (0, b"")
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        if usable(store):
            assert store.checksums("9.2.2") == expected("9.2.2")
            Store(str(store.path)).remove("9.2.2")
