"""Foreign entries are left alone, unless the config removes them."""

import os
from pathlib import Path

import pytest
from support.daemon import StartDaemon
from support.instance import Instance
from support.programs import FOREIGN, foreign_program, install
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG

HANDLER = r"""
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/true"
"""
LINES = (
    rb":plain:M::foreign::/usr/bin/true:",
    rb":with blank:M:3:\x01\x02:\xff\x0f:/usr/bin/env:OC",
    b":raw\xff\\name:E::odd::/nowhere/at all:P",
    rb":qemu-vax:M::\x7fELF\x01\x01\x01vax::/usr/bin/true:F",
)
OURS = f"qemu-{FOREIGN}"
QEMU = f"/usr/bin/{OURS}"
needs_qemu = pytest.mark.skipif(
    not os.path.exists(QEMU), reason="qemu-user is not installed: apt-get install qemu-user"
)


def snapshot(instance: Instance) -> dict[str, tuple[int, str]]:
    """Return inode number and text of every foreign entry."""
    return {name: (instance.inode(name), instance.read(name)) for name in instance.names() if name != "one"}


def test_left_alone_byte_for_byte(instance: Instance, start_daemon: StartDaemon) -> None:
    """During all repairs foreign entries keep text, inode number, order and a disabled state."""
    for line in LINES:
        instance.register(line)
    instance.write("plain", b"0")
    before, order = snapshot(instance), instance.names()
    daemon = start_daemon("architectures = []\n" + HANDLER)
    for _ in range(3):
        instance.remove("one")
        wait_until(lambda: "one" in instance.names(), what="the repair")
    daemon.reload()
    daemon.wait_for_log("config_reloaded")
    assert daemon.terminate() == 0
    assert snapshot(instance) == before
    assert [name for name in instance.names() if name != "one"] == order


def test_unmanaged_remove_spares_keep(instance: Instance, start_daemon: StartDaemon) -> None:
    """With unmanaged = "remove" foreign entries are removed, at the start and later, except those in keep."""
    for line in LINES:
        instance.register(line)
    config = 'architectures = []\nunmanaged = "remove"\nkeep = ["with*", "qemu-*"]\n' + HANDLER
    start_daemon(config)
    assert sorted(instance.names()) == ["one", "qemu-vax", "with blank"]
    instance.register(rb":late:M::late::/usr/bin/true:")
    wait_until(lambda: "late" not in instance.names(), what="the end of a late entry")
    assert sorted(instance.names()) == ["one", "qemu-vax", "with blank"]


def test_shown_in_the_status(instance: Instance, start_daemon: StartDaemon) -> None:
    """The status names foreign entries, and whether they are enabled."""
    instance.register(LINES[0])
    instance.write("plain", b"0")
    daemon = start_daemon("architectures = []\n" + HANDLER)
    assert daemon.status()["foreign"] == [{"name": "plain", "enabled": False}]
    instance.write("plain", b"1")
    daemon.wait_status(lambda status: status["foreign"] == [{"name": "plain", "enabled": True}], "an enabled entry")


@needs_qemu
def test_all_leaves_what_a_foreign_entry_serves(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """An architecture from "all" that a working foreign entry serves is not registered until that entry is removed."""
    match = CATALOG[FOREIGN].match
    fields = [b"".join(b"\\x%02x" % byte for byte in part or b"") for part in (match.magic, match.mask)]
    instance.register(b":someone:M::%b:%b:%b:F" % (*fields, QEMU.encode()))
    before = snapshot(instance)["someone"]
    daemon = start_daemon("")
    assert OURS not in instance.names()
    assert "qemu-ppc64le" in instance.names()
    row = next(row for row in daemon.status()["handlers"] if row["name"] == OURS)
    assert row["state"] == "served_elsewhere"
    assert "someone" in row["reason"]
    assert daemon.status()["state"] == "converged"
    assert snapshot(instance)["someone"] == before
    program = foreign_program(tmp_path / "program", CATALOG[FOREIGN])
    instance.remove("someone")
    wait_until(lambda: OURS in instance.names(), what="an entry of our own")
    assert instance.run([str(program)]).returncode == 42


@needs_qemu
@pytest.mark.parametrize("how", ["named", "broken", "disabled"])
def test_what_does_not_serve_is_no_reason(instance: Instance, start_daemon: StartDaemon, how: str) -> None:
    """A named architecture is registered, and so is one whose foreign entry cannot work or is disabled."""
    match = CATALOG[FOREIGN].match
    fields = [b"".join(b"\\x%02x" % byte for byte in part or b"") for part in (match.magic, match.mask)]
    interpreter = b"/nowhere/qemu" if how == "broken" else QEMU.encode()
    instance.register(b":someone:M::%b:%b:%b:" % (*fields, interpreter))
    if how == "disabled":
        instance.write("someone", b"0")
    start_daemon(f'architectures = ["{FOREIGN}"]' if how == "named" else "")
    assert OURS in instance.names()


@needs_qemu
@pytest.mark.parametrize(("flags", "ours"), [("F", False), ("", True)])
def test_an_interpreter_by_a_relative_path(
    instance: Instance, start_daemon: StartDaemon, flags: str, ours: bool
) -> None:
    """A foreign entry with a relative interpreter path serves with F; without F it does not, and ours is registered."""
    match = CATALOG[FOREIGN].match
    fields = ["".join(f"\\x{byte:02x}" for byte in part or b"") for part in (match.magic, match.mask)]
    line = ":".join(("", "someone", "M", "", *fields, Path(QEMU).name, flags))
    instance.shell(f"cd {Path(QEMU).parent}; printf '%s' '{line}' >{instance.directory}/register", check=True)
    daemon = start_daemon("")
    assert (OURS in instance.names()) is ours
    if not ours:
        instance.remove("someone")
        wait_until(lambda: OURS in instance.names(), what="an entry of our own")
    assert daemon.terminate() == 0


@needs_qemu
def test_a_provider_that_loses_its_interpreter(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """If a foreign entry without F loses its interpreter, it serves no more, and ours is registered."""
    theirs = install(tmp_path / "qemu", Path("/usr/bin/true").read_bytes())
    match = CATALOG[FOREIGN].match
    fields = [b"".join(b"\\x%02x" % byte for byte in part or b"") for part in (match.magic, match.mask)]
    instance.register(b":someone:M::%b:%b:%b:" % (*fields, str(theirs).encode()))
    start_daemon("")
    assert OURS not in instance.names()
    theirs.unlink()
    wait_until(lambda: OURS in instance.names(), what="an entry of our own")
