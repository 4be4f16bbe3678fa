"""The fixture ``instance`` is private and real, and leaves nothing behind."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.instance import MOUNT_POINT, Instance, NotPrivateError, namespace_of_its_own
from support.programs import install
from support.waiting import IN_CLOSE_WRITE, DirectoryWatch, wait_until

LINE = b":wasm:M::\\x00asm::/usr/bin/wasmtime:"
WITH_SUPPORT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


def processes_in(namespace: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text(errors="replace")  # foreign processes may have any command line
            if command and os.readlink(process / "ns/user") == namespace:  # a zombie has no command line
                found.append(command)
        except OSError:
            continue
    return found


def test_it_is_the_kernel_itself_and_empty(instance: Instance) -> None:
    """A new instance has no entries, accepts a registration, prints it as the kernel does and refuses nonsense."""
    assert instance.names() == []
    assert instance.read("status") == "enabled\n"
    instance.register(LINE)
    assert instance.names() == ["wasm"]
    assert instance.read("wasm") == "enabled\ninterpreter /usr/bin/wasmtime\nflags: \noffset 0\nmagic 0061736d\n"
    with pytest.raises(FileExistsError):
        instance.register(LINE)


def test_names_come_newest_first_and_need_not_be_text(instance: Instance) -> None:
    """The listing has the kernel's order, and a name that is not UTF-8 can be read and written."""
    for name in (b"first", b"l\xe4t", b".hidden"):
        instance.register(LINE.replace(b"wasm", name, 1))
    assert instance.names() == [".hidden", "l\udce4t", "first"]
    instance.remove("l\udce4t")
    assert instance.names() == [".hidden", "first"]


@pytest.mark.usefixtures("private_instances")
def test_two_at_a_time_do_not_see_each_other(make_instance: Callable[[], Instance]) -> None:
    """An entry, a disabled state or a flush of one instance does not appear in another."""
    one, other = make_instance(), make_instance()
    one.register(LINE)
    assert other.names() == []
    other.register(LINE)
    other.write("status", b"0")
    assert one.read("status") == "enabled\n"
    other.remove("status")
    assert (one.names(), other.names()) == (["wasm"], [])


@pytest.mark.usefixtures("private_instances")
def test_the_module_wide_one_is_another(instance: Instance, module_instance: Instance) -> None:
    """The two fixtures can be used together, and are two instances."""
    instance.register(LINE)
    assert module_instance.names() == []


@pytest.mark.usefixtures("private_instances")
def test_commands_inside_see_it_where_the_host_has_its_own(instance: Instance, tmp_path: Path) -> None:
    """At the usual mount point a command inside finds the private instance, and a matching program its handler."""
    program = install(tmp_path / "program", b"\0asm and more")
    instance.register(LINE.replace(b"/usr/bin/wasmtime", b"/bin/echo"))
    assert instance.shell(f"cat {MOUNT_POINT}/wasm").stdout == instance.read("wasm")
    assert instance.run([str(program), "argument"]).stdout == f"{program} argument\n"
    with pytest.raises(OSError, match="Exec format error"):
        subprocess.run([str(program)], check=False)


def test_writes_inside_wake_a_watch_outside(instance: Instance) -> None:
    """A watch through /proc/PID/root gets the events of writes inside."""
    with DirectoryWatch(instance.directory) as watch:
        instance.shell(f"echo 0 > {MOUNT_POINT}/status")
        events = watch.wait_for(lambda event: event.mask & IN_CLOSE_WRITE, what="CLOSE_WRITE on status")
    assert events.name == "status"


@pytest.mark.usefixtures("private_instances")
def test_what_is_ours_is_refused(instance: Instance) -> None:
    """A process in our user namespace, or an instance that is mounted here too, is never accepted as private."""
    with pytest.raises(NotPrivateError, match="our own user namespace"):
        namespace_of_its_own(os.getpid())
    # To a process inside, its instance is the one that is mounted here.
    script = f"from support.instance import *; refuse_mounted_here(Path({MOUNT_POINT!r}))"
    result = instance.run([sys.executable, "-c", script], env=WITH_SUPPORT)
    assert f"NotPrivateError: {MOUNT_POINT} is an instance that is mounted here too" in result.stderr


@pytest.mark.usefixtures("private_instances")
def test_nothing_stays_behind(make_instance: Callable[[], Instance]) -> None:
    """Closing ends the holder and all processes inside, also those that a command left in the background."""
    instance = make_instance()
    namespace = os.readlink(f"/proc/{instance.pid}/ns/user")
    instance.popen(["sleep", "600"])
    instance.shell("sleep 600 >/dev/null 2>&1 &")
    assert len(processes_in(namespace)) == 3
    with instance:
        pass
    wait_until(lambda: not processes_in(namespace), what="no process in the namespace")


@pytest.mark.usefixtures("private_instances")
def test_it_dies_with_the_test_process() -> None:
    """A test process that is killed leaves no holder behind."""
    script = (
        "import os, signal; from support.instance import Instance; i = Instance();"
        "print(os.readlink(f'/proc/{i.pid}/ns/user'), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script], env=WITH_SUPPORT, capture_output=True, text=True, check=False
    )
    assert killed.stdout.startswith("user:[")
    wait_until(lambda: not processes_in(killed.stdout.strip()), what="no process in the namespace")


@pytest.mark.usefixtures("private_instances")
def test_a_hundred_are_cheap() -> None:
    """A hundred instances in a row are each empty at first."""
    for number in range(100):
        with Instance() as instance:
            assert instance.names() == [], f"instance {number}"
            instance.register(LINE)


@pytest.mark.usefixtures("private_instances")
def test_the_host_stays_covered(instance: Instance) -> None:
    """No process inside can unmount the file system that covers the host's instance, however often it tries."""
    script = f"while umount {instance.mount_point}; do :; done; stat -f -c %T {instance.mount_point}"
    assert instance.run(["sh", "-c", script]).stdout.strip() == "tmpfs"


def test_a_machine_of_its_own_is_needed_to_lend_it_out() -> None:
    """No environment variable alone makes a machine lend its own instance: the kernel's command line has to, too."""
    script = "from support.instance import made_for_tests; print(made_for_tests())"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=WITH_SUPPORT | {"BINFMTD_TEST_MACHINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"{'binfmtd.test-machine' in Path('/proc/cmdline').read_text().split()}\n"
