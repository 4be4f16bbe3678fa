"""Each key of the config has its documented effect on the real kernel; some keys have their own tests elsewhere."""

import shutil
from pathlib import Path

import pytest
from support.daemon import StartDaemon
from support.instance import Instance
from support.waiting import wait_until


@pytest.fixture
def emulators(tmp_path: Path) -> Path:
    """Return a directory with executable files that have the names of some emulators."""
    directory = tmp_path / "bin"
    directory.mkdir(mode=0o755)
    for name in ("qemu-arm", "qemu-s390x-static", "qemu-s390x", "mine"):
        shutil.copy("/usr/bin/true", directory / name)
    return directory


def test_emulators(instance: Instance, start_daemon: StartDaemon, emulators: Path) -> None:
    """The first of `paths` that exists is used; `entry`, `flags` and a table for one architecture have their effect."""
    start_daemon(f"""
        architectures = ["all", "-arm"]
        [emulators]
        paths = ["{emulators}/qemu-{{name}}-static", "{emulators}/qemu-{{name}}"]
        entry = "emu-{{name}}"
        flags = "F"
        [emulators.arm64]
        interpreter = "{emulators}/mine"
        entry = "own"
        flags = "OF"
        priority = 3
    """)
    assert sorted(instance.names()) == ["emu-s390x", "own"]
    assert f"interpreter {emulators}/qemu-s390x-static\nflags: F\n" in instance.read("emu-s390x")
    assert f"interpreter {emulators}/mine\nflags: OF\n" in instance.read("own")


def test_no_architectures(instance: Instance, start_daemon: StartDaemon) -> None:
    """An empty array declares no architecture, and removes no foreign entry."""
    instance.register(rb":qemu-arm:M::arm::/usr/bin/true:")
    daemon = start_daemon("architectures = []")
    assert instance.names() == ["qemu-arm"]
    assert daemon.status()["handlers"] == []


def test_native_is_left_out_unless_forced(instance: Instance, start_daemon: StartDaemon, emulators: Path) -> None:
    """A native architecture gets no handler from "all"; i386 on amd64 may be forced, by name."""
    if "i386" not in instance.run(["uname", "-m"]).stdout and "x86_64" not in instance.run(["uname", "-m"]).stdout:
        pytest.skip("this test knows only what x86-64 runs natively")
    shutil.copy("/usr/bin/true", emulators / "qemu-i386")
    paths = f'[emulators]\npaths = ["{emulators}/qemu-{{name}}"]\n'
    daemon = start_daemon(paths)
    assert "qemu-i386" not in instance.names()
    daemon.config.write_text(paths + "[emulators.i386]\nforce = true\n")
    daemon.reload()
    wait_until(lambda: "qemu-i386" in instance.names(), what="the forced architecture")


def test_force_beats_the_native_guard(instance: Instance, start_daemon: StartDaemon) -> None:
    """A handler that takes scripts is refused, and registered with force = true."""
    table = "architectures = []\n[handlers.scripts]\nmagic = '#!'\ninterpreter = \"/usr/bin/true\"\n"
    daemon = start_daemon(table)
    assert instance.names() == []
    daemon.config.write_text(table + "force = true\n")
    daemon.reload()
    wait_until(lambda: instance.names() == ["scripts"], what="the forced handler")


def test_handler_fields(instance: Instance, start_daemon: StartDaemon) -> None:
    """`magic`, `mask`, `offset`, `extension` and `flags` appear in the kernel's text of the entry."""
    start_daemon(r"""
        architectures = []
        [handlers."with blank"]
        magic = 'a:b\x00\x5c'
        mask = '\xff\xff\xff\x00\xff'
        offset = 7
        interpreter = "/usr/bin/true"
        flags = "FC"
        [handlers.byname]
        extension = "jar"
        interpreter = "/usr/bin/true"
    """)
    assert instance.read("with blank") == (
        "enabled\ninterpreter /usr/bin/true\nflags: OCF\noffset 7\nmagic 613a62005c\nmask ffffff00ff\n"
    )
    assert instance.read("byname") == "enabled\ninterpreter /usr/bin/true\nflags: \nextension .jar\n"


SHADOWED = "architectures = []\n[handlers.one]\nmagic = '\\x00one'\ninterpreter = \"/usr/bin/true\"\n"


def test_shadowed_is_reported(instance: Instance, start_daemon: StartDaemon) -> None:
    """A newer foreign entry that takes our files is named in status and log, and left as it is."""
    daemon = start_daemon(SHADOWED)
    instance.register(rb":above:M::\x00o::/usr/bin/false:")
    row = daemon.wait_status(lambda status: status["handlers"][0]["state"] == "shadowed", "shadowed")["handlers"][0]
    assert "above" in row["reason"]
    line = daemon.wait_for_log("handler_shadowed", entry="one")
    assert (line["level"], line["reason"]) == ("warning", "the newer entry above takes its files")
    assert instance.names() == ["above", "one"]


def test_shadowed_is_outranked(instance: Instance, start_daemon: StartDaemon) -> None:
    """With shadowed = "outrank" our entry is registered again above it."""
    daemon = start_daemon('shadowed = "outrank"\n' + SHADOWED)
    instance.register(rb":above:M::\x00o::/usr/bin/false:")
    wait_until(lambda: instance.names() == ["one", "above"], what="ours above")
    daemon.wait_converged()
    assert daemon.logs("handler_shadowed") == []


def test_settle(instance: Instance, start_daemon: StartDaemon) -> None:
    """With settle = "0ms" the proper entry follows at once; the daemon does not wait for quiet."""
    start_daemon('settle = "0ms"\n' + SHADOWED)
    instance.remove("one")
    wait_until(lambda: instance.names() == ["one"], what="the proper entry")
