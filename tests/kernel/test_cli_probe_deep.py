"""``binfmtd probe --deep``: what programs of Docker's platforms can do under the emulators of this machine."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import CHECKOUT, Cli, run
from support.deep import expected, outcomes, platforms, reason
from support.instance import Instance
from support.programs import FOREIGN, install
from support.root_trees import libraries, native_tree
from support.waiting import SLOWNESS, wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.deep_checks import CHECK_NAMES, CHECKS, DEEP_PROGRAMS, DYNAMIC, FIXED, PIE
from binfmtd.catalog.names import find
from binfmtd.catalog.program import tiny_program
from binfmtd.host.deep_files import deep_program
from binfmtd.host.facts import kernel_version
from binfmtd.model.handler import Flags
from binfmtd.model.match import Magic

NATIVE = find(os.uname().machine).name
ALL_BUT_DYNAMIC = CHECK_NAMES[:-1]
HEAD_BYTES = 64

# A seccomp filter that makes openat2 fail with ENOSYS, on all architectures (seccomp(2)): an old kernel looks so.
NO_OPENAT2 = """
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x50026), (0x06, 0, 0, 0x7FFF0000)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-m", "binfmtd", *sys.argv[1:]])
"""
# An emulator that does nothing but start: without flag P its arguments are the program's path, "" and the check.
SCRIPT = "#!/bin/sh\ncase $3 in {cases} *) exit 42;; esac\n"

Register = Callable[..., None]


@pytest.fixture
def register(instance: Instance, tmp_path: Path) -> Register:
    """Return a function that registers QEMU, or a script in place of it, for an architecture."""

    def register(name: str, flags: Flags = Flags.F, *, cases: str = "") -> None:
        interpreter = f"/usr/bin/qemu-{name}"
        if cases:
            script, flags = SCRIPT.format(cases=cases), Flags.NONE
            interpreter = str(install(tmp_path / f"emulator-{name}", script.encode()))
        elif not os.path.exists(interpreter):
            pytest.skip(f"{interpreter} is not here: apt-get install qemu-user")
        matches = {f"my-{name}": CATALOG[name].match}
        if name == NATIVE:
            # The emulator itself is such a program: an entry for all of them would be a loop.
            heads = {f"my-{name}": tiny_program(CATALOG[name])}
            heads |= {f"my-{program.file}-{kind}": deep_program(program, kind) for program, kind in programs(name)}
            matches = {entry: Magic(head[:HEAD_BYTES]) for entry, head in heads.items()}
        for entry, match in matches.items():
            instance.add(entry, match, interpreter, flags)

    return register


def programs(architecture: str) -> list[tuple[Any, str]]:
    return [(each, kind) for each in DEEP_PROGRAMS if each.architecture == architecture for kind in (PIE, FIXED)]


@pytest.mark.parametrize("architecture", dict.fromkeys(program.architecture for program in DEEP_PROGRAMS))
def test_this_machines_qemu(cli: Cli, register: Register, architecture: str) -> None:
    """Under QEMU the programs of each platform pass all checks, except for the known faults of its version."""
    register(architecture)
    done = cli("probe", "--deep", "--json", architecture)
    rows = platforms(done)
    assert len(rows) == (2 if architecture == "arm" else 1)
    wanted = expected(architecture)
    for row in rows.values():
        assert (row["name"], row["runs"], row["natively"], row["entry"]) == (
            architecture,
            True,
            False,
            f"my-{architecture}",
        )
        assert [check["check"] for check in row["checks"]] == list(CHECK_NAMES)
        assert outcomes(row) == wanted, row["checks"]
        assert row["passes"] is (not {"fails", "missing"} & set(wanted.values()))
    assert done.status == (0 if all(row["passes"] for row in rows.values()) else 1)


def test_natively(cli: Cli) -> None:
    """A native program passes all checks that this kernel can make."""
    done = cli("probe", "--deep", "--json", NATIVE)
    (row,) = platforms(done).values()
    untested = {check.name: "untested" for check in CHECKS if kernel_version() < check.since}
    assert outcomes(row) == untested | {DYNAMIC: "untested"}
    assert (done.status, row["natively"], row["passes"]) == (0, True, True)


def test_known_faults_are_named(cli: Cli, register: Register) -> None:
    """A check that fails for a known fault of the emulator names it; without that check the exit status is 0."""
    if "heap" not in expected("aarch64"):
        pytest.skip("the heap of arm64 programs can grow under this QEMU")
    register("aarch64")
    done = cli("probe", "--deep", "arm64")
    assert done.status == 1
    assert [row[:3] for row in done.rows if row[:1] == ["heap"]] == [["heap", "fails", "arm64"]]
    assert "a known fault of QEMU" in done.stdout
    skipping = cli("probe", "--deep", "--skip", "heap", "arm64")
    assert skipping.status == 0
    assert "heap" not in skipping.stdout


def test_the_table(cli: Cli, register: Register) -> None:
    """One row for each platform counts the checks; another table has those that do not pass, and why."""
    register("s390x")
    done = cli("probe", "--deep")
    assert done.status == 0
    rows = {row[0]: row[1:] for row in done.rows if row and row[0].startswith("linux/")}
    assert [name.removeprefix("linux/") for name in rows] == [
        row.platform.removeprefix("linux/") for row in DEEP_PROGRAMS
    ]
    failing = {check: outcome for check, outcome in expected("s390x").items() if outcome != "untested"}
    made = len(ALL_BUT_DYNAMIC) - sum(kernel_version() < check.since for check in CHECKS)
    assert rows["linux/s390x"] == ["through", "my-s390x", f"{made - len(failing)}", "of", f"{made}"]
    assert rows["linux/riscv64" if FOREIGN == "riscv64" else "linux/arm64"][:2] == ["no", "-"]
    others = {row[0]: row[1] for row in done.rows if row and row[0] in CHECK_NAMES}
    assert others == expected("s390x")
    assert "--root DIR" in done.stdout


def test_without_flag_f(cli: Cli, register: Register) -> None:
    """Through an entry without F the checks are made in our own root directory."""
    register("riscv64", Flags.NONE)
    (row,) = platforms(cli("probe", "--deep", "--json", "riscv64")).values()
    assert (row["runs"], row["in_chroot"]) == (True, False)
    assert outcomes(row) == expected("riscv64", flags=Flags.NONE)


def test_with_flag_p(cli: Cli, register: Register) -> None:
    """Where emulator and kernel support flag P, the programs get their own arguments through such an entry."""
    register("riscv64", Flags.P | Flags.F)
    (row,) = platforms(cli("probe", "--deep", "--json", "riscv64")).values()
    assert outcomes(row) == expected("riscv64", flags=Flags.P | Flags.F)


def test_a_heap_at_a_random_address(cli: Cli, register: Register, tmp_path: Path) -> None:
    """The heap may fail to grow twice, since its address is random; a third failure counts."""
    tries = tmp_path / "tries"
    fails = f"echo >>{tries}; test $(wc -l <{tries}) -ge {{}} || {{{{ printf 'brk\\t000\\n'; exit 1; }}}}; exit 42"
    register("s390x", cases=f"heap) {fails.format(3)};;")
    (row,) = platforms(cli("probe", "--deep", "--json", "s390x")).values()
    assert "heap" not in outcomes(row)
    assert len(tries.read_text()) == 3
    tries.unlink()
    register("riscv64", cases=f"heap) {fails.format(4)};;")
    (row,) = platforms(cli("probe", "--deep", "--json", "riscv64")).values()
    assert outcomes(row)["heap"] == "fails"


def test_emulators_that_fail(cli: Cli, register: Register, tmp_path: Path) -> None:
    """A crash, a missing system call, a failed step and a flood of output have each their own reason."""
    register(
        "s390x",
        cases=(
            f"memory) kill -SEGV $$;; openat2) printf 'openat2\\t026\\n'; exit 1;; "
            f"clone3) printf 'clone3\\t026\\n'; exit 1;; heap) printf 'brk\\t000\\n'; exit 1;; "
            f"signals) printf 'mmap\\t00c\\n'; exit 1;; floats) dd if=/dev/zero bs=1M count=3; exit 3;; "
            f"threads) sleep 1000 & echo $! >{tmp_path}/left; exit 42;;"
        ),
    )
    done = cli("probe", "--deep", "--json", "s390x")
    (row,) = platforms(done).values()
    assert (done.status, row["runs"], row["passes"]) == (1, True, False)
    fails = dict.fromkeys(("memory", "heap", "signals", "floats"), "fails")
    assert outcomes(row) == fails | {"openat2": "missing", "clone3": "unneeded", DYNAMIC: "untested"}
    assert reason(row, "memory").startswith("it was killed by signal 11")
    assert reason(row, "heap") == "failed: brk"
    assert reason(row, "signals") == "mmap: Cannot allocate memory"
    assert reason(row, "floats") == "its exit status is 3, should be 42"
    assert reason(row, "openat2").startswith("the emulator lacks this system call. tar of Ubuntu 26.04")
    assert "Use QEMU 9.2 or later" in reason(row, "openat2")
    left = (tmp_path / "left").read_text().strip()
    wait_until(lambda: not os.path.exists(f"/proc/{left}"), what="the end of the process that the emulator left")


def test_an_emulator_that_hangs(cli: Cli, register: Register) -> None:
    """After three checks that do not end, the rest of the platform's checks is left out."""
    register("s390x", cases="?*) exec sleep 1000;;")
    script = (
        "from binfmtd.cli.context import observe\n"
        "from binfmtd.cli.deep import DeepProbe\n"
        "from binfmtd.catalog.deep_checks import deep_programs\n"
        "(found,) = DeepProbe(observe(None), [], (), 0.2)(deep_programs(['s390x']))\n"
        "print(*(check.outcome for check in found.checks))\n"
        "print(found.checks[0].reason)\n"
    )
    done = cli.instance.run(["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-c", script])
    found, why = done.stdout.splitlines()
    assert found.split() == ["fails"] * 3 + ["untested"] * (len(CHECK_NAMES) - 3), done.stderr
    assert why.startswith("it was killed by signal 9, Killed (as is any program that makes no progress for ")


def test_a_probe_that_is_ended(cli: Cli, register: Register, tmp_path: Path) -> None:
    """If the probe is ended by a signal, processes that its present program has made end with it."""
    file = tmp_path / "pid"
    register("s390x", cases=f"?*) sleep 1000 & echo $! >{file}; wait;;")
    process = subprocess.Popen(cli.command("probe", "--deep", "s390x"), stdout=subprocess.DEVNULL)
    left = os.pidfd_open(int(wait_until(lambda: file.exists() and file.read_text(), what="a process")))
    process.terminate()
    assert process.wait(10 * SLOWNESS) == 128 + signal.SIGTERM
    assert select.select([left], [], [], 10 * SLOWNESS)[0], "it still runs"
    os.close(left)


def test_a_host_that_lacks_a_system_call(cli: Cli, register: Register) -> None:
    """A system call that the host's kernel lacks, or a filter forbids, is no fault of an emulator, and no failure."""
    register("s390x")
    command = ["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-c", NO_OPENAT2, "probe", "--deep", "--json"]
    done = run(cli.instance.entering([*command, "s390x", NATIVE]))
    for row in platforms(done).values():
        assert outcomes(row)["openat2"] == "untested"
        assert reason(row, "openat2").startswith("this host's kernel lacks this system call, which Linux 5.6 has, or")


def test_a_tree(cli: Cli, tmp_path: Path) -> None:
    """A dynamic program of a root tree runs in it; without its library, or its linker, the check fails."""
    tree = native_tree(tmp_path / "tree")
    done = cli("probe", "--deep", "--json", "--root", str(tree), NATIVE)
    (row,) = platforms(done).values()
    assert done.status == 0
    assert [check["outcome"] for check in row["checks"] if check["check"] == DYNAMIC] == ["ok"]
    for library in libraries(tree):
        library.unlink()
    done = cli("probe", "--deep", "--json", "--root", str(tree))
    assert done.status == 1
    assert reason(platforms(done)[CATALOG[NATIVE].oci[0].removeprefix("linux/")], DYNAMIC) == (
        f"/bin/true in {tree}: its exit status is 127, should be 0"
    )
    for linker in tree.rglob("ld*.so*"):
        linker.unlink()
    shown = cli("probe", "--deep", "--root", str(tree), NATIVE)
    assert shown.status == 1
    assert "its dynamic linker does not exist in the tree" in shown.stdout


def test_command_lines(cli: Cli, tmp_path: Path) -> None:
    """A command line that asks for something impossible ends with status 2 and the remedy."""
    tree = native_tree(tmp_path / "tree")
    (tmp_path / "empty").mkdir()
    other = "s390x" if NATIVE != "s390x" else "riscv64"
    for arguments, remedy in (
        (["--deep", "alpha"], "name one of"),
        (["--deep", "arm46"], "did you mean"),
        (["--root", str(tree)], "add --deep"),
        (["--skip", "heap"], "add --deep"),
        (["--deep", "--write"], "leave --deep or --write out"),
        (["--deep", "--skip", "haep"], "did you mean heap?"),
        (["--deep", "--root", str(tmp_path / "empty")], "name the root directory of a system"),
        (["--deep", "--root", str(tmp_path / "nowhere")], "name the root directory of a system"),
        (["--deep", "--root", str(tree), other], "was not named: name it, too"),
    ):
        done = cli("probe", *arguments)
        assert (done.status, done.stdout) == (2, ""), arguments
        assert remedy in done.message


NO_CHROOT = (
    'echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-sys_chroot --inh-caps=-sys_chroot "$@"'
)


def test_where_chroot_is_forbidden(cli: Cli, tmp_path: Path) -> None:
    """Where the root directory cannot be changed, the checks are made in our own, and that of a tree is not made."""
    tree = native_tree(tmp_path / "tree")
    command = cli.command("probe", "--deep", "--json", "--root", str(tree), NATIVE)
    at = command.index("env")
    done = run([*command[:at], "unshare", "-Ur", "sh", "-euc", NO_CHROOT, "sh", *command[at:]])
    (row,) = platforms(done).values()
    assert outcomes(row) == {DYNAMIC: "untested"} | {
        check.name: "untested" for check in CHECKS if kernel_version() < check.since
    }
    assert reason(row, DYNAMIC).endswith("this process may not make it its root directory: run this as root")
    assert done.status == 1


def test_without_privileges(cli: Cli, register: Register, tmp_path: Path) -> None:
    """A process without capabilities gets the same results, also of a root tree."""
    register("s390x")
    tree = native_tree(tmp_path / "tree")
    command = cli.command("probe", "--deep", "--json", "--root", str(tree), "s390x", NATIVE)
    at = command.index("env")
    done = run([*command[:at], "setpriv", "--bounding-set=-all", "--inh-caps=-all", *command[at:]])
    for row in platforms(done).values():
        untested = {check.name: "untested" for check in CHECKS if kernel_version() < check.since}
        assert outcomes(row) == (untested if row["name"] == NATIVE else expected(row["name"])), row["checks"]
        assert row["in_chroot"]
