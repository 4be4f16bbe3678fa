"""The one file in a root tree of Debian 12 without Python: its commands, and the daemon in a private instance."""

import bz2
import gzip
import lzma
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.bare import EMULATOR, Bare
from support.booted import CONFIG, ENTRY, MOUNT_POINT, PROGRAM
from support.cli import CHECKOUT, run
from support.deep import expected, outcomes, platforms
from support.doctor import failures
from support.instance import Instance
from support.programs import exits_with, install
from support.stores import emulators, three
from support.waiting import wait_until

from binfmtd import __version__
from binfmtd.cli.main import COMMANDS
from binfmtd.host.interpreters import required_loader

pytestmark = pytest.mark.packages

ANSWER = 51
DENIED = 126  # a shell's exit status
ONE_HANDLER = 'architectures = ["riscv64"]\n'
ANOTHER = 'architectures = []\n[handlers.x]\nextension = "x"\ninterpreter = "/usr/bin/true"\n'
STORE = "--store=/root/store"
PAIRS = 15
MOST = 1.5  # the longest start, in starts of an ordinary installation
# A seccomp filter that makes the system call of this number fail with EPERM, then a command (seccomp(2)).
NO_MEMFD = """
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1])), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.fixture(scope="module")
def bare(one_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    with Instance() as instance:
        yield Bare(instance, tmp_path_factory.mktemp("bare"), one_file)


@pytest.fixture
def daemon(bare: Bare, tmp_path: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Yield the daemon's process, with one handler that is registered; its emulator exits with ANSWER."""
    install(bare.path(EMULATOR), exits_with(ANSWER))
    bare.path(CONFIG).write_text(ONE_HANDLER)
    log = tmp_path / "log"
    process = bare.start(log, "binfmtd", "run")
    try:

        def converged() -> bool:
            assert process.poll() is None, log.read_text()
            return ENTRY in bare.instance.names() and bare.run("binfmtd", "status", "--check").status == 0

        wait_until(converged, 30, "the handler, and the status file")
        yield process
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()
        bare.run("rm", "-rf", "/run/binfmtd")
        bare.instance.remove("status")


def memory_files(pid: int) -> list[str]:
    """Return the files in memory that a process has open; each is open only while it is loaded."""
    opened = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            opened.append(os.readlink(path))
    return [file for file in opened if "memfd:" in file]


def test_there_is_no_python(bare: Bare) -> None:
    """The tree has neither Python's program nor its library."""
    assert [*bare.path("/usr/bin").glob("python*"), *bare.path("/usr/lib").rglob("libpython*")] == []


def test_both_commands(bare: Bare) -> None:
    """The file is binfmtd; by a link of that name it is binfmt."""
    assert bare.run("binfmtd", "--version").stdout == f"binfmtd {__version__}\n"
    done = bare.run("binfmt", "--version")
    assert done.status == 0
    assert f"binfmt/{__version__} " in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_loaded(bare: Bare, command: str) -> None:
    """Each command prints its own help."""
    done = bare.run("binfmtd", command, "--help")
    assert (done.status, done.stderr) == (0, "")
    assert f"binfmtd {command}" in done.stdout


def test_repairs(bare: Bare, daemon: "subprocess.Popen[bytes]") -> None:
    """A foreign program runs, and an entry that another program removes is registered again."""
    assert bare.run("sh", "-c", PROGRAM).status == ANSWER
    inode = bare.instance.inode(ENTRY)
    bare.instance.remove(ENTRY)
    bare.instance.wait_registered_anew(ENTRY, inode, 30)
    assert bare.run("sh", "-c", PROGRAM).status == ANSWER
    assert bare.run("binfmtd", "status", "--json").json["pid"] == daemon.pid


def test_reload(bare: Bare, daemon: "subprocess.Popen[bytes]") -> None:
    """A reload returns when the new config is in force; an invalid one is rejected with the reason."""
    bare.path(CONFIG).write_text(ANOTHER)
    done = bare.run("binfmtd", "reload")
    assert done.status == 0, done.stderr
    assert bare.instance.names() == ["x"]
    bare.path(CONFIG).write_text("architecturez = []\n")
    done = bare.run("binfmtd", "reload")
    assert done.status != 0
    assert "architecturez" in done.stderr
    assert daemon.poll() is None


def test_stop(daemon: "subprocess.Popen[bytes]") -> None:
    """SIGTERM ends the daemon with status 0."""
    daemon.terminate()
    assert daemon.wait(30) == 0


def test_probes_of_the_daemon(bare: Bare, daemon: "subprocess.Popen[bytes]") -> None:
    """The daemon starts itself once more for its probes, and finds the result."""
    bare.path(CONFIG).write_text(f'probe = "after-repair"\n{ONE_HANDLER}')
    assert bare.run("binfmtd", "reload").status == 0
    bare.instance.remove(ENTRY)
    wait_until(lambda: bare.run("test", "-e", "/run/binfmtd/probed.json").status == 0, 30, "the result of a probe")
    assert daemon.poll() is None


@pytest.mark.usefixtures("daemon")
def test_no_file_is_written(bare: Bare) -> None:
    """Neither a command nor the daemon unpacks anything: /tmp, where no program could run, stays empty."""
    assert bare.run("sh", "-c", "cp /bin/true /tmp; /tmp/true; status=$?; rm /tmp/true; exit $status").status == DENIED
    before = bare.files()
    for command in (["check"], ["status"], ["doctor"], ["arch"], ["plan"]):
        assert "Traceback" not in bare.run("binfmtd", *command).stderr
    bare.instance.remove(ENTRY)
    wait_until(lambda: ENTRY in bare.instance.names(), 30, "the repair")
    assert bare.files() == before


def test_compiled_modules_are_in_memory(daemon: "subprocess.Popen[bytes]") -> None:
    """The daemon loads pydantic_core, which it takes for a reload, from memory; no descriptor of it stays open."""
    maps = Path(f"/proc/{daemon.pid}/maps")
    wait_until(lambda: "/memfd:_pydantic_core" in maps.read_text(), 30, "pydantic_core")
    assert "/memfd:libffi" in maps.read_text()
    wait_until(lambda: not memory_files(daemon.pid), 30, "closed descriptors")


def test_doctor(bare: Bare, daemon: "subprocess.Popen[bytes]") -> None:
    """Beside a running daemon `doctor` finds one failure: the test's emulator, which is none."""
    done = bare.run("binfmtd", "doctor", "--json")
    assert done.stderr == ""
    assert failures(done) == [("emulators", "broken")]
    assert daemon.poll() is None


def test_probe_deep(bare: Bare) -> None:
    """`probe --deep` has its programs, and finds in this machine's QEMU what it finds as an ordinary installation."""
    qemu = shutil.which("qemu-riscv64")
    if qemu is None or required_loader(qemu) is not None:
        pytest.skip("takes a static qemu-riscv64, as Debian 13 has it: apt-get install qemu-user")
    bare.path(EMULATOR).unlink(missing_ok=True)
    shutil.copy(qemu, bare.path(EMULATOR))
    assert bare.run("binfmtd", "apply", "--arch", "riscv64").status == 0
    try:
        (row,) = platforms(bare.run("binfmtd", "probe", "--deep", "--json", "riscv64")).values()
        assert outcomes(row) == expected("riscv64")
    finally:
        bare.instance.remove("status")


def test_the_store_of_emulators(bare: Bare) -> None:
    """`emulators` imports a directory, exports it, and knows each compression by which an archive can be imported."""
    emulators(bare.path("/root/source"), three("9.2.2"))
    done = bare.run("binfmtd", "emulators", "import", STORE, "/root/source")
    assert (done.status, done.stderr) == (0, "")
    assert bare.run("binfmtd", "emulators", "verify", STORE).status == 0
    assert bare.run("binfmtd", "emulators", "export", STORE, "9.2.2", "/root/archive.tar").status == 0
    content = bare.path("/root/archive.tar").read_bytes()
    for suffix, compress in COMPRESSIONS.items():
        bare.path(f"/root/archive.tar.{suffix}").write_bytes(compress(content))
        done = bare.run("binfmtd", "emulators", "import", STORE, f"/root/archive.tar.{suffix}")
        assert "skopeo is missing" in done.stderr, suffix  # it has read the archive, and takes skopeo for the rest


def test_no_room_for_a_library(bare: Bare) -> None:
    """Where a compiled module cannot be copied into memory, one line names it, the reason and the remedy."""
    bare.path(CONFIG).write_text(ONE_HANDLER)
    done = bare.run("sh", "-c", "ulimit -f 1; exec binfmtd check")
    assert done.status == 1
    assert "cannot be copied into memory (File too large): " in done.message
    assert done.message.endswith(": raise the limit of file sizes (ulimit -f)")


def test_where_files_in_memory_are_forbidden(one_file: Path) -> None:
    """Where a filter forbids memfd_create, one line names another way to install binfmtd."""
    number = {"x86_64": "319", "aarch64": "279"}[os.uname().machine]
    done = run([sys.executable, "-c", NO_MEMFD, number, str(one_file), "check", "--arch", "riscv64"])
    assert done.status == 1
    assert "cannot be copied into memory (Operation not permitted): " in done.message
    assert "install binfmtd with pip instead" in done.message


def test_where_files_in_memory_cannot_be_executed(one_file: Path) -> None:
    """It runs with the sysctl vm.memfd_noexec of 2: its files in memory are libraries, and no programs."""
    if not Path("/proc/sys/vm/memfd_noexec").exists():
        pytest.skip("the sysctl came with Linux 6.3")
    script = 'echo 2 >/proc/sys/vm/memfd_noexec; exec "$0" check --arch riscv64'  # of the new process namespace alone
    done = run(["unshare", "--pid", "--fork", "--mount-proc", "sh", "-euc", script, str(one_file)])
    assert (done.status, done.stderr) == (0, "")


def test_it_uses_nothing_of_the_hosts_python(bare: Bare, one_file: Path) -> None:
    """On a host with Python, its variables and packages change nothing."""
    broken = bare.path("/root/broken")
    broken.mkdir()
    for name in ("binfmtd", "pydantic", "json", "encodings", "sitecustomize"):
        (broken / f"{name}.py").write_text("raise SystemExit(99)\n")
    done = run([str(one_file), "check"], cwd=broken, env={"PYTHONPATH": str(broken), "PYTHONHOME": str(broken)})
    assert done.status == 0, done.stderr


def test_glibc(one_file: Path) -> None:
    """The document names the version of glibc that the file requires."""
    measured = (one_file.parent / "glibc").read_text().strip()
    section = (CHECKOUT / "docs/packages.md").read_text().partition("\n## One file\n")[2].partition("\n## ")[0]
    assert re.findall(r"needs glibc (\d+\.\d+) or later", section) == [measured]


@pytest.mark.parametrize("arguments", [["--version"], ["check", "--arch", "riscv64"]], ids=" ".join)
def test_it_starts_as_fast(
    bare: Bare, one_file: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A command starts about as fast as an ordinary installation's; the two run in turn, and the ratio is printed."""
    commands = [[str(one_file), *arguments], [sys.executable, "-m", "binfmtd", *arguments]]
    seconds: list[list[float]] = [[], []]
    for _ in range(PAIRS + 1):  # the first pair is not counted
        for command, found in zip(commands, seconds, strict=True):
            started = time.perf_counter()
            subprocess.run(bare.instance.entering(command), capture_output=True, check=False)
            found.append(time.perf_counter() - started)
    ratios = [ours / ordinary for ours, ordinary in list(zip(*seconds, strict=True))[1:]]
    ours, ordinary = (statistics.median(found[1:]) * 1000 for found in seconds)
    ratio = statistics.median(ratios)
    with capsys.disabled():
        print(  # noqa: T201  the measurement is the result of this test
            f"\n{arguments[0]}: {ours:.0f} ms, as an ordinary installation {ordinary:.0f} ms; ratio {ratio:.2f}"
        )
    assert ratio < MOST


def test_the_instance_is_private(bare: Bare) -> None:
    """The tree's binfmt_misc is the private instance: an entry that the test registers is there."""
    bare.instance.register(b":only-here:E::only-here::/bin/true:\n")
    assert bare.run("test", "-e", f"{MOUNT_POINT}/only-here").status == 0
    bare.instance.remove("only-here")
