"""The probe finds out which architectures run, natively or by which emulator, also with fewer rights."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import CHECKOUT
from support.fuse import HangingFileSystem
from support.instance import Instance
from support.programs import exits_with, install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.cli.compat.platforms import native_architecture

# A seccomp filter that makes ptrace fail with EPERM: load the number; if it is ptrace's, EPERM, else allow
# (seccomp(2)).
FORBID_PTRACE = """
import ctypes, os, struct
number = {"x86_64": 101, "i686": 26, "armv7l": 26, "s390x": 26, "ppc64le": 26}.get(os.uname().machine, 117)
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
"""
SCRIPT = """
import json, os, sys
from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.host.probe import Prober
names = json.loads(sys.argv[1])
with Prober() as probe:
    found = [probe(name, tiny_program(CATALOG[name]), expected) for name, expected in names.items()]
print(json.dumps({each.name: each._asdict() for each in found}))
"""
REAL = "/usr/bin/qemu-{}"

Ask = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def ask(module_instance: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Yield a function that probes architectures, each with its expected interpreter, in an instance with entries."""
    for name, path, flags in (
        ("alpha", REAL.format("alpha"), "F"),
        ("hppa", REAL.format("hppa"), ""),
        ("m68k", REAL.format("alpha"), "F"),
        ("or1k", "/nowhere", ""),
    ):
        module_instance.add(f"qemu-{name}", CATALOG[name].match, path, flags)
    directory = tmp_path_factory.mktemp("probe")

    def ask(names: dict[str, str | None], *before: str, shell: str = "", first: str = "") -> dict[str, dict[str, Any]]:
        words = [*before, "env", f"TMPDIR={directory}", f"PYTHONPATH={CHECKOUT}", sys.executable, "-c", first + SCRIPT]
        command = [*words, json.dumps(names)]
        if shell:
            command = ["unshare", "-Ur", "sh", "-euc", f'{shell}\nexec "$@"', "sh", *command]
        result = module_instance.run(command)
        assert (result.returncode, result.stderr) == (0, "")
        assert list(directory.iterdir()) == []
        found: dict[str, dict[str, Any]] = json.loads(result.stdout)
        return found

    yield ask
    module_instance.remove("status")


def test_who_runs_it(ask: Ask, tmp_path: Path) -> None:
    """An emulator that F opened is identified by its content; native programs run natively; failures have reasons."""
    (tmp_path / "copy").write_bytes(Path(REAL.format("alpha")).read_bytes())
    host = native_architecture(Path(sys.executable).read_bytes())
    assert host is not None
    found = ask({"alpha": str(tmp_path / "copy"), host: None, "hppa": None, "m68k": None, "sh4": None})
    assert all(each["in_chroot"] for each in found.values())
    assert all(0 < each["duration"] < 10 for each in found.values())
    assert {name: each["runs"] for name, each in found.items()} == {
        "alpha": True,
        host: True,
        "hppa": False,
        "m68k": False,
        "sh4": False,
    }
    assert (found["alpha"]["natively"], found["alpha"]["as_expected"], found["alpha"]["reason"]) == (False, True, "")
    assert (found[host]["natively"], found[host]["as_expected"]) == (True, None)
    assert found["hppa"]["reason"].startswith(
        "its interpreter does not exist in an empty root directory: its entry lacks flag F"
    )
    assert found["m68k"]["reason"] == "its exit status is 255, should be 42"
    assert found["sh4"]["reason"] == "no entry takes it, and the host does not run it natively"


@pytest.mark.parametrize("expected", [REAL.format("hppa"), "/usr/bin/true", "/nowhere"])
def test_not_the_expected(ask: Ask, expected: str) -> None:
    """An emulator that differs from the file at the expected path is reported; for an unreadable path it is unknown."""
    (found,) = ask({"alpha": expected}).values()
    assert (found["runs"], found["as_expected"]) == (True, None if expected == "/nowhere" else False)


NO_CHROOT = "--bounding-set=-sys_chroot"


def test_without_the_right_to_chroot(ask: Ask) -> None:
    """Without CAP_SYS_CHROOT the chroot is made in a user namespace, where the same entries apply."""
    found = ask({"alpha": REAL.format("alpha"), "hppa": None}, "setpriv", NO_CHROOT, "--inh-caps=-sys_chroot")
    assert {name: (each["in_chroot"], each["runs"]) for name, each in found.items()} == {
        "alpha": (True, True),
        "hppa": (True, False),
    }
    assert found["alpha"]["as_expected"]


def test_where_chroot_is_forbidden(ask: Ask) -> None:
    """Without user namespaces, too, programs run in our own root, which is reported, and entries without F serve."""
    forbid = f'echo 0 > /proc/sys/user/max_user_namespaces\nset -- setpriv {NO_CHROOT} --inh-caps=-sys_chroot "$@"'
    found = ask({"alpha": REAL.format("alpha"), "hppa": None, "or1k": None}, shell=forbid)
    assert {name: (each["in_chroot"], each["runs"]) for name, each in found.items()} == {
        "alpha": (False, True),
        "hppa": (False, True),
        "or1k": (False, False),
    }


def test_where_ptrace_is_forbidden(ask: Ask) -> None:
    """Without ptrace(2) programs still run, but which emulator runs them is unknown."""
    found = ask({"alpha": REAL.format("alpha"), "hppa": None}, first=FORBID_PTRACE)
    assert {name: (each["in_chroot"], each["runs"], each["natively"]) for name, each in found.items()} == {
        "alpha": (True, True, None),
        "hppa": (True, False, None),
    }
    assert found["alpha"]["as_expected"] is None


def test_a_directory_without_execution(ask: Ask, module_instance: Instance, tmp_path: Path) -> None:
    """A TMPDIR that is mounted noexec is passed over for another directory."""
    module_instance.shell(f"mount -t tmpfs -o noexec tmpfs {tmp_path}")
    (found,) = ask({"alpha": None}, "env", f"TMPDIR={tmp_path}").values()
    assert found["runs"]


def test_under_a_hard_limit_of_no_core_dumps(ask: Ask) -> None:
    """A hard limit of no core dumps (LimitCORE=0, docker's --ulimit core=0) does not change the result."""
    found = ask({"alpha": REAL.format("alpha"), "or1k": None}, "prlimit", "--core=0:0")
    assert (found["alpha"]["runs"], found["alpha"]["as_expected"]) == (True, True)
    assert found["or1k"]["reason"].startswith("its interpreter does not exist in an empty root directory")


@pytest.mark.usefixtures("ask")
def test_where_there_is_no_room(module_instance: Instance) -> None:
    """A full directory is passed over for the next."""
    script = 'mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs /mnt; exec "$@"'
    command = ["env", "TMPDIR=/mnt", f"PYTHONPATH={CHECKOUT}", sys.executable, "-c", SCRIPT, '{"alpha": null}']
    result = module_instance.run(["unshare", "-m", "sh", "-euc", script, "sh", *command])
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["alpha"]["runs"] is True, result.stdout


def test_an_interpreter_whose_file_system_hangs(instance: Instance, tmp_path: Path) -> None:
    """An exec that waits for the interpreter's file system is given up, as a program that makes no progress."""
    files = HangingFileSystem(instance, tmp_path / "mounted", tmp_path / "backing")
    install(files.backing / "emulator", exits_with(42))
    instance.add("hangs", CATALOG["sh4"].match, files.directory / "emulator", "")
    script = SCRIPT.replace("Prober()", "Prober(in_chroot=False, patience=0.5)")
    command = ["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-c", script, '{"sh4": null}']
    assert json.loads(instance.run(command).stdout)["sh4"]["runs"]
    files.hang()
    result = instance.run(command)
    files.answer()
    found = json.loads(result.stdout)["sh4"]
    assert (found["runs"], found["hung"]) == (False, True)
    assert found["reason"].startswith("it was killed by signal 9, Killed (as is any program that makes no progress")
