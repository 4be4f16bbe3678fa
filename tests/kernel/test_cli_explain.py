"""``binfmtd explain``: why the kernel executes a file, or does not."""

import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import Cli, run, unprivileged_python
from support.elf_files import made
from support.instance import MOUNT_POINT, Instance
from support.programs import FOREIGN, exits_with, foreign_program, install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.files.distribution import emulators_remedy
from binfmtd.model.match import Extension, Magic
from binfmtd.model.stand_in import stand_in_name

LINKER = "/lib/ld-linux-aarch64.so.1"
DYNAMIC = made((3, LINKER.encode() + b"\0"))  # of aarch64
ARM64 = CATALOG["aarch64"]
EMULATOR = "/usr/bin/qemu-aarch64"

# No shell, which would try to run a file that the kernel refuses.
EXEC = """
import errno, os, sys
try:
    os.execv(sys.argv[1], ["x"])
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a native program that exits with 7."""
    return install(tmp_path / "native", exits_with(7))


def explain(cli: Cli, *arguments: str | Path) -> dict[str, Any]:
    """Return the explanation of one file; the exit status has to agree with it."""
    done = cli("explain", "--json", *map(str, arguments))
    (found,) = done.json
    assert done.status == (0 if found["runs"] else 1)
    return dict(found)


def script(path: Path, text: str) -> Path:
    return install(path, text.encode())


def really(cli: Cli, path: str | Path) -> int | str:
    """Execute a file, and return its exit status or the name of the errno."""
    done = run(cli.instance.entering([sys.executable, "-c", EXEC, str(path)]))
    return done.stdout.strip() or done.status


def test_an_environment_that_is_invalid(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown architecture in $BINFMTD_ARCH, like an invalid config, takes nothing but a part of the remedy away."""
    monkeypatch.setenv("BINFMTD_ARCH", "amr64")
    found = explain(cli, foreign_program(tmp_path / "program", CATALOG[FOREIGN]))
    assert "is invalid: $BINFMTD_ARCH: unknown architecture 'amr64'" in found["remedy"]


# The file itself


def test_a_native_program(cli: Cli, program: Path) -> None:
    """A native program runs, with its own path as argv[0]: status 0."""
    found = explain(cli, program)
    assert (found["runs"], found["by"], found["entry"]) == (True, "native", None)
    assert found["argv"] == [str(program)]
    assert (found["kind"], found["executable"]) == ("elf", True)
    shown = cli("explain", str(program))
    assert (shown.status, shown.stdout.splitlines()[0]) == (0, f"{program}: runs natively")
    assert "bits" in shown.stdout
    assert "static, and may be executed" in shown.stdout


@pytest.mark.parametrize(
    ("make", "errno", "said", "remedy"),
    [
        (Path.absolute, "ENOENT", "does not exist", None),
        (os.mkfifo, "EACCES", "is a FIFO", "regular file"),
        (lambda path: path.symlink_to("/nowhere/at/all"), "ENOENT", "/nowhere is missing", None),
        (lambda path: path.symlink_to(path.name), "ELOOP", "symbolic links", None),
        (lambda path: path.write_bytes(b"x"), "EACCES", "has no execute permission (mode 0644)", "chmod +x"),
    ],
    ids=["missing", "fifo", "dangling", "loop", "mode"],
)
def test_what_cannot_be_executed(
    cli: Cli, tmp_path: Path, make: Callable[[Path], Any], errno: str, said: str, remedy: str | None
) -> None:
    """A file that cannot be executed is explained with the kernel's errno, the reason and the remedy."""
    path = tmp_path / "file"
    make(path)
    if not path.is_symlink() and path.is_file():
        path.chmod(0o644)
    found = explain(cli, path)
    assert (found["runs"], found["errno"], found["by"], found["executable"]) == (False, errno, None, False)
    assert said in found["reason"]
    assert remedy is None or remedy in found["remedy"]
    assert really(cli, path) == errno


def test_a_working_directory_that_is_gone(cli: Cli, program: Path) -> None:
    """Where the working directory was removed, an absolute path is explained as elsewhere, and a relative one fails."""
    words = cli.command("explain", "--json", str(program), "relative")
    split = words.index(sys.executable)
    gone = ["sh", "-euc", 'mkdir /tmp/gone-$$; cd /tmp/gone-$$; rmdir /tmp/gone-$$; exec "$@"', "sh"]
    absolute, relative = run([*words[:split], *gone, *words[split:]]).json
    assert (absolute["runs"], relative["errno"]) == (True, "ENOENT")
    assert relative["reason"].startswith("relative does not exist: ")


def test_a_path_through_another_process(cli: Cli, program: Path) -> None:
    """A path through /proc/PID/root is judged by the files that this process sees, also where it sees none."""
    cli.instance.shell(f"mount -t tmpfs none /mnt && cp {program} /mnt/here", check=True)
    script = f"mount -t tmpfs none /mnt; cp {program} /mnt/there; echo; exec sleep 600"
    other = cli.instance.popen(["unshare", "-m", "sh", "-euc", script], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    here, there = (f"/proc/{other.pid}/root/mnt/{name}" for name in ("here", "there"))
    found = explain(cli, here)
    assert (found["errno"], found["reason"]) == ("ENOENT", f"{here}: No such file or directory")
    assert explain(cli, there)["runs"]
    assert [really(cli, path) for path in (here, there)] == ["ENOENT", 7]


def test_what_would_be_if_it_were_executable(cli: Cli, tmp_path: Path) -> None:
    """If more than the mode is wrong with a file, the next problem is shown as well."""
    path = foreign_program(tmp_path / "foreign", ARM64)
    path.chmod(0o644)
    found = explain(cli, path)
    assert found["errno"] == "EACCES"
    assert any(
        "if you could execute it, the next problem would be" in note and "aarch64" in note for note in found["notes"]
    )


def test_a_noexec_mount(cli: Cli, program: Path) -> None:
    """A noexec mount is named, with the remedy."""
    cli.instance.shell("mount -t tmpfs -o noexec none /mnt && mkdir /mnt/in", check=True)
    path = Path("/mnt/in/program")
    cli.instance.shell(f"cp {program} {path}", check=True)
    found = explain(cli, path)
    assert (found["errno"], found["runs"]) == ("EACCES", False)
    assert "lies on /mnt, which is mounted noexec" in found["reason"]
    assert "mount -o remount,bind,exec /mnt" in found["remedy"]


def test_a_noexec_bind_mount(cli: Cli, program: Path) -> None:
    """A bind mount that alone is noexec is named, and not the mount around it; the remedy lets the file run."""
    directory = program.parent
    cli.instance.shell(f"mount --bind {directory} {directory} && mount -o remount,bind,noexec {directory}", check=True)
    found = explain(cli, program)
    assert (found["errno"], really(cli, program)) == ("EACCES", "EACCES")
    assert f"lies on {directory}, which is mounted noexec" in found["reason"]
    cli.instance.shell(found["remedy"].partition("as root: ")[2], check=True)
    assert (explain(cli, program)["runs"], really(cli, program)) == (True, 7)


@pytest.mark.usefixtures("private_instances")
def test_for_whom_it_is_judged(everybody: Instance, open_directory: Path, program: Path) -> None:
    """An ordinary user sees the entries; a file that only root may execute is EACCES, an unreadable one unknown.

    An interpreter that only root may read does not matter if the kernel has opened it.
    """
    everybody.add("theirs", ARM64.match, EMULATOR)
    foreign_program(open_directory / "foreign", ARM64)
    shutil.copy(program, open_directory / "emulator")
    (open_directory / "emulator").chmod(0o711)
    everybody.add("opened", Magic(b"OPENED"), open_directory / "emulator")
    install(open_directory / "opened", b"OPENED")
    for name, mode in (("mine", 0o755), ("closed", 0o700), ("secret", 0o711)):
        shutil.copy(program, open_directory / name)
        (open_directory / name).chmod(mode)
    (open_directory / "hidden").mkdir(mode=0o700)
    shutil.copy(program, open_directory / "hidden" / "program")
    files = [str(open_directory / name) for name in ("mine", "foreign", "opened", "closed", "secret", "hidden/program")]
    done = run(everybody.entering([*unprivileged_python(), "-m", "binfmtd", "explain", "--json", *files]))
    mine, foreign, opened, closed, secret, hidden = done.json
    assert (done.status, done.stderr) == (1, "")
    assert (mine["by"], foreign["entry"], foreign["runs"]) == ("native", "theirs", True)
    assert (opened["entry"], opened["runs"]) == ("opened", True)
    assert (closed["errno"], "not executable for you (mode 0700" in closed["reason"]) == ("EACCES", True)
    assert (secret["runs"], "run this as root" in secret["remedy"]) == (None, True)
    assert hidden["errno"] == "EACCES"
    assert f"may not search the directory {open_directory}/hidden" in hidden["reason"]


# Scripts


def test_a_chain_of_scripts(cli: Cli, tmp_path: Path, program: Path) -> None:
    """Each first line of a chain of scripts is a step, with the arguments as the kernel passes them."""
    first = script(tmp_path / "first", f"#!{program} -a  b \n")
    second = script(tmp_path / "second", f"#! {first}\n")
    found = explain(cli, second)
    assert (found["by"], found["interpreter"], found["runs"]) == ("script", str(first), True)
    assert [step["taken_by"] for step in found["steps"]] == ["script", "script", "native"]
    assert found["argv"] == [str(program), "-a  b", str(first), str(second)]
    assert really(cli, second) == 7


@pytest.mark.parametrize(
    ("text", "errno", "reason", "remedy"),
    [
        ("#!/nowhere/python\n", "ENOENT", "names '/nowhere/python'", "install /nowhere/python, or name another"),
        ("#!/bin/sh\r\n", "ENOENT", "carriage return", "sed -i"),
        ("#!/" + "x" * 300 + "\n", "ENOEXEC", "cannot use", "within the first 255 bytes"),
        ("#!\n", "ENOEXEC", "cannot use", "name an interpreter"),
        ("\ufeff#!/bin/sh\n", "ENOEXEC", "byte order mark", "remove the mark"),
        ("echo hello\n", "ENOEXEC", "a text without #!", "begin it with #!/bin/sh"),
        ("", "ENOEXEC", "an empty file", "written completely"),
    ],
)
def test_scripts_that_do_not_run(cli: Cli, tmp_path: Path, text: str, errno: str, reason: str, remedy: str) -> None:
    """A script that does not run is explained with the reason and the kernel's own errno."""
    path = script(tmp_path / "script", text)
    found = explain(cli, path)
    assert (found["runs"], found["errno"]) == (False, errno)
    assert reason in found["reason"]
    assert remedy in found["remedy"]
    assert really(cli, path) == errno


def test_what_env_finds(cli: Cli, tmp_path: Path) -> None:
    """A script with env(1) is explained by the program that env looks up, also if its name contains blanks."""
    good = script(tmp_path / "good", "#!/usr/bin/env sh\nexit 5\n")
    lost = script(tmp_path / "lost", "#!/usr/bin/env no-such-program\n")
    blank = script(tmp_path / "blank", "#!/usr/bin/env sh -e\n")
    assert explain(cli, good)["runs"]
    found = explain(cli, lost)
    assert (found["runs"], found["errno"]) == (False, None)
    assert "finds no program 'no-such-program'" in found["reason"]
    assert "/usr/bin/env -S sh -e" in explain(cli, blank)["remedy"]
    assert [really(cli, path) for path in (good, lost, blank)] == [5, 127, 127]


def test_notes(cli: Cli, tmp_path: Path, program: Path) -> None:
    """Notes are shown for a carriage return in an argument and for a set-uid bit, with and without flag C."""
    crlf = script(tmp_path / "crlf", f"#!{program} -e\r\n")
    (note,) = explain(cli, crlf)["notes"]
    assert "carriage return" in note
    cli.instance.add("plain", Magic(b"one"), program)
    cli.instance.add("risky", Magic(b"two"), program, "C")
    for content, said in ((b"one", "plain has no flag C"), (b"two", "risky has flag C")):
        path = install(tmp_path / "set-uid", content)
        path.chmod(0o4755)
        (note,) = explain(cli, path)["notes"]
        assert said in note


# Entries


def test_which_entry_takes_it(cli: Cli, tmp_path: Path, program: Path) -> None:
    """The newest enabled entry that matches takes the file; the other ones are listed as shadowed or disabled."""
    cli.instance.add("older", Magic(b"XY"), program)
    cli.instance.add("disabled", Magic(b"XYZ"), program)
    cli.instance.add("by-name", Extension("odd"), program)
    cli.instance.add("taker", Magic(b"\x5f\x59", b"\xf0\xff"), program, "P")
    cli.instance.add("unrelated", Magic(b"other"), program)
    cli.instance.write("disabled", b"0")
    path = install(tmp_path / "file.odd", b"XYZ")
    found = explain(cli, path)
    assert (found["by"], found["entry"], found["interpreter"]) == ("entry", "taker", str(program))
    assert found["argv"] == [str(program), str(path), str(path)]
    step = found["steps"][0]
    assert {key: step[key] for key in ("offset", "bytes", "magic", "mask", "flags")} == {
        "offset": 0,
        "bytes": "5859",
        "magic": "5f59",
        "mask": "f0ff",
        "flags": "P",
    }
    assert step["passed_over"] == [
        {"entry": "by-name", "because": "shadowed"},
        {"entry": "disabled", "because": "disabled"},
        {"entry": "older", "because": "shadowed"},
    ]
    assert really(cli, path) == 7
    shown = cli("explain", str(path)).stdout
    for said in (
        f"{path}: runs through entry taker",
        "5859",
        "5f59",
        "f0ff",
        "older: matches too, but a newer entry takes the file (shadowed)",
        "disabled: matches, but is disabled",
    ):
        assert said in shown
    cli.instance.write("taker", b"0")
    step = explain(cli, path)["steps"][0]
    assert (step["entry"], step["extension"]) == ("by-name", "odd")


def test_a_handlers_two_entries_are_one_line(cli: Cli, tmp_path: Path, program: Path) -> None:
    """A handler that does not take the file is shown once, unless its entries are passed over for two reasons."""
    for name in (stand_in_name("ours"), "ours", "taker"):
        cli.instance.add(name, Magic(b"XY"), program)
    path = install(tmp_path / "file", b"XY")
    ours = {"entry": "ours", "because": "shadowed"}
    assert explain(cli, path)["steps"][0]["passed_over"] == [ours]
    cli.instance.write("ours", b"0")
    assert explain(cli, path)["steps"][0]["passed_over"] == [ours | {"because": "disabled"}, ours]


def test_disabled_or_switched_off(cli: Cli, tmp_path: Path) -> None:
    """For a disabled entry that would take the file the remedy is the line to type, and it works."""
    cli.instance.add("mine", ARM64.match, EMULATOR)
    path = foreign_program(tmp_path / "foreign", ARM64)
    for name in ("mine", "status"):
        cli.instance.write(name, b"0")
        found = explain(cli, path)
        assert (found["runs"], found["errno"], found["by"]) == (False, "ENOEXEC", None)
        assert "entry mine would" in found["reason"]
        assert found["remedy"] == f"as root: echo 1 > {MOUNT_POINT}/{name}"
        cli.instance.shell(found["remedy"].removeprefix("as root: "), check=True)
        assert explain(cli, path)["entry"] == "mine"


def test_an_interpreter_that_is_missing(cli: Cli, tmp_path: Path) -> None:
    """Without F a missing interpreter is an error; with F it is open, and the file runs."""
    gone = install(tmp_path / "gone", exits_with(9))
    cli.instance.add("opened", Magic(b"OPENED"), gone, "F")
    cli.instance.add("named", Magic(b"NAMED"), gone, "")
    gone.unlink()
    opened, named = install(tmp_path / "opened", b"OPENED"), install(tmp_path / "named", b"NAMED")
    found = explain(cli, named)
    assert (found["errno"], found["steps"][0]["reachable"]) == ("ENOENT", False)
    assert f"entry named takes {named}, but its interpreter is missing" in found["reason"]
    assert explain(cli, opened)["runs"]
    assert really(cli, opened) == 9


def test_interpreters_that_are_taken_themselves(cli: Cli, tmp_path: Path, program: Path) -> None:
    """Interpreters that are taken again end with ELOOP, and after flag O with ENOEXEC."""
    path = install(tmp_path / "loop", b"LOOP")
    cli.instance.add("loops", Magic(b"LOOP"), path)
    found = explain(cli, path)
    assert (found["runs"], found["errno"], len(found["steps"])) == (False, "ELOOP", 6)
    assert "each interpreter is itself taken by an entry or a #! line" in found["reason"]
    once = install(tmp_path / "once", b"ONCE")
    cli.instance.add("passes", Magic(b"ONCE"), script(tmp_path / "script", f"#!{program}\n"), "O")
    twice = explain(cli, once)
    assert (twice["runs"], twice["errno"], "without flags O and C" in twice["remedy"]) == (False, "ENOEXEC", True)
    assert [really(cli, each) for each in (path, once)] == ["ELOOP", "ENOEXEC"]


def test_an_interpreter_that_may_not_be_executed(cli: Cli, tmp_path: Path, program: Path) -> None:
    """If the interpreter's mode forbids execution, the interpreter is named, not the file."""
    cli.instance.add("named", Magic(b"NAMED"), program, "")
    program.chmod(0o644)
    path = install(tmp_path / "file", b"NAMED")
    found = explain(cli, path)
    assert (found["errno"], really(cli, path)) == ("EACCES", "EACCES")
    assert f"its interpreter cannot be executed: {program} has no execute permission" in found["reason"]
    assert found["remedy"] == f"chmod +x {program}"


def test_inside_of_a_chroot(cli: Cli, tmp_path: Path) -> None:
    """With F a static interpreter serves in any chroot; a dynamic one, or one without F, only with its files."""
    true = shutil.which("true") or ""
    paths = {}
    for name, interpreter, flags in (
        ("static", "/usr/bin/qemu-aarch64", "F"),
        ("dynamic", true, "F"),
        ("plain", "/usr/bin/qemu-aarch64", ""),
    ):
        cli.instance.add(name, Magic(name.encode()), interpreter, flags)
        paths[name] = install(tmp_path / name, name.encode())
    steps = {name: explain(cli, path)["steps"][0] for name, path in paths.items()}
    said = {name: (step["reachable"], step["in_chroot"], step["static"]) for name, step in steps.items()}
    assert said == {"static": (True, True, True), "dynamic": (True, False, False), "plain": (True, False, True)}
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, path in paths.items():
        shutil.copy(path, tree / name)
    static, dynamic, plain = (explain(cli, "--root", tree, f"/{name}") for name in paths)
    assert (static["runs"], dynamic["errno"], plain["errno"]) == (True, "ENOENT", "ENOENT")
    assert "dynamic linker" in dynamic["reason"]
    ran = {name: run(cli.instance.entering(["chroot", str(tree), f"/{name}"])).stderr for name in paths}
    assert "No such file" in ran["plain"]
    assert "No such file" in ran["dynamic"]
    assert "No such file" not in ran["static"]


# The host's own loader, and foreign C libraries


def test_a_dynamic_linker_that_is_missing(cli: Cli, tmp_path: Path) -> None:
    """A dynamic linker (PT_INTERP) that is missing or invalid is named, with the kernel's errno."""
    native = Path(sys.executable).resolve().read_bytes()
    machine = int.from_bytes(native[18:20], sys.byteorder)
    install(tmp_path / "linker", b"no linker".ljust(64))
    install(tmp_path / "short", b"no linker")
    nowhere = install(tmp_path / "a", made((3, b"/lib/ld-musl-none.so.1\0"), machine=machine))
    wrong = install(tmp_path / "b", made((3, f"{tmp_path}/linker\0".encode()), machine=machine))
    short = install(tmp_path / "c", made((3, f"{tmp_path}/short\0".encode()), machine=machine))
    found = explain(cli, nowhere)
    assert (found["errno"], found["runs"]) == ("ENOENT", False)
    assert "its dynamic linker (PT_INTERP): /lib/ld-musl-none.so.1 does not exist" in found["reason"]
    assert [explain(cli, path)["errno"] for path in (wrong, short)] == ["ELIBBAD", "EIO"]
    assert [really(cli, path) for path in (nowhere, wrong, short)] == ["ENOENT", "ELIBBAD", "EIO"]


def test_a_foreign_program_needs_its_own_libc(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign dynamic program needs its dynamic linker, whose path is named.

    In a tree that has the linker, or with it below QEMU's prefix, the program runs.
    """
    cli.instance.add("qemu-aarch64", ARM64.match, EMULATOR)
    path = install(tmp_path / "dynamic", DYNAMIC)
    found = explain(cli, path)
    assert (found["runs"], found["by"], found["entry"], found["errno"]) == (False, "entry", "qemu-aarch64", None)
    assert f"its dynamic linker {LINKER} (glibc) is missing" in found["reason"]
    assert "libc6:arm64" in found["remedy"]
    assert LINKER in run(cli.instance.entering([str(path)])).stderr  # QEMU's own message
    tree = tmp_path / "tree"
    install_linker = tree / LINKER.lstrip("/")
    install_linker.parent.mkdir(parents=True)
    install(tree / "dynamic", DYNAMIC)
    remedy = explain(cli, "--root", tree, "/dynamic")["remedy"]
    assert remedy.startswith(f"put {LINKER} and the libraries of the program into the tree")
    install(install_linker, DYNAMIC)
    assert explain(cli, "--root", tree, "/dynamic")["runs"]
    monkeypatch.setenv("QEMU_LD_PREFIX", str(tree))
    assert explain(cli, path)["runs"]


def test_a_library(cli: Cli, tmp_path: Path) -> None:
    """The kernel starts a shared library that may be executed, as all are on Fedora; it crashes, so it does not run.

    So does an emulator; but what a handler by extension does with it is unknown.
    """
    libraries = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libm.so." in line}
    if not libraries:
        pytest.skip("this Python has no libm of its own")
    path = install(tmp_path / "library", Path(libraries.pop()).read_bytes())
    found = explain(cli, path)
    assert (found["runs"], found["errno"], found["remedy"]) == (False, None, "this is not a program")
    assert "endian: a shared library, without an entry point" in found["reason"]  # it is neither static nor dynamic
    assert run(cli.instance.entering([str(path)])).status == -signal.SIGSEGV
    cli.instance.add("qemu-aarch64", ARM64.match, EMULATOR)
    foreign = install(tmp_path / "foreign.so", made((1, b"code"), entry=0))
    assert "a shared library, without an entry point" in explain(cli, foreign)["reason"]
    cli.instance.add("loader", Extension("so"), EMULATOR)
    assert explain(cli, foreign)["runs"]


def with_segment(program: bytes, in_file: int, in_memory: int) -> bytes:
    """Return a program of 64 bits, little endian, whose only segment is writable and has these sizes in bytes."""
    changed = bytearray(program)
    struct.pack_into("<I", changed, 68, 7)
    struct.pack_into("<QQ", changed, 96, in_file, in_memory)
    return bytes(changed)


def test_a_foreign_program_whose_headers_are_cut_off(cli: Cli, tmp_path: Path) -> None:
    """The kernel passes it to the emulator, which ends with an error; what an extension does with it is unknown."""
    cli.instance.add("qemu-aarch64", ARM64.match, EMULATOR)
    whole = foreign_program(tmp_path / "program", ARM64).read_bytes()
    headers = install(tmp_path / "headers", whole[:100])
    found = explain(cli, headers)
    assert (found["runs"], found["errno"]) == (False, None)
    assert found["reason"] == (
        f"{headers}: it is cut off within its program headers: {EMULATOR} would start, and end with an error"
    )
    assert found["remedy"].startswith("get the file again")
    if Path(EMULATOR).exists():
        assert really(cli, tmp_path / "program") == 42
        assert really(cli, headers) not in (0, 42)
    cli.instance.add("data", Extension("data"), EMULATOR)
    assert explain(cli, install(tmp_path / "cut.data", whole[:100]))["runs"]


@pytest.mark.parametrize("natively", [True, False])
def test_a_program_whose_segments_are_cut_off(cli: Cli, tmp_path: Path, natively: bool) -> None:
    """It runs until it uses a missing part; at once if that is the page which the loader clears behind a segment."""
    if natively:
        if sys.byteorder != "little" or sys.maxsize < 1 << 32:
            pytest.skip("the program is one of 64 bits, little endian")
        content, status = exits_with(7), 7
    else:
        cli.instance.add("qemu-aarch64", ARM64.match, EMULATOR)
        content, status = foreign_program(tmp_path / "program", ARM64).read_bytes(), 42
    page = mmap.PAGESIZE
    runs = install(tmp_path / "runs", with_segment(content, 3 * page, 3 * page))
    clears = install(tmp_path / "clears", with_segment(content, 2 * page + 8, 3 * page))
    same_page = install(tmp_path / "same_page", with_segment(content, len(content) + 8, 3 * page))
    for file, reaches in ((runs, 3 * page), (same_page, len(content) + 8)):
        found = explain(cli, file)
        (note,) = (note for note in found["notes"] if "known fault" not in note)
        cut = f"it is cut off: its segments end at byte {reaches}, and the file at byte {len(content)}."
        assert (found["runs"], note.startswith(cut)) == (True, True)
    found = explain(cli, clears)
    assert (found["runs"], found["errno"], found["remedy"]) == (False, None, "get the file again")
    assert "SIGSEGV or SIGBUS ends it at its start" in found["reason"]
    if natively or Path(EMULATOR).exists():
        assert [really(cli, file) for file in (runs, same_page)] == [status, status]
        assert really(cli, clears) in (-signal.SIGSEGV, -signal.SIGBUS)


@pytest.mark.parametrize(
    ("linker", "package"),
    [
        ("/lib/ld-linux-armhf.so.3", "libc6:armhf"),
        ("/lib/ld-linux.so.3", "libc6:armel"),
        ("/lib/ld-musl-armhf.so.1", "musl:armhf"),
        ("/lib/ld-musl-arm.so.1", "musl:armel"),
    ],
)
def test_both_kinds_of_32_bit_arm(cli: Cli, tmp_path: Path, linker: str, package: str) -> None:
    """The package of a C library for 32-bit Arm is that of the program's own calling convention."""
    cli.instance.add("qemu-arm", CATALOG["arm"].match, "/usr/bin/qemu-arm")
    path = install(tmp_path / "dynamic", made((3, linker.encode() + b"\0"), bits=32, machine=40))
    assert package in explain(cli, path)["remedy"]


@pytest.mark.parametrize("flags", ["POF", "PO"])
def test_qemu_by_another_name(cli: Cli, tmp_path: Path, flags: str) -> None:
    """QEMU is recognised by the file that the entry's path leads to, as under Debian's names for flag P."""
    emulator = Path("/usr/bin/qemu-aarch64")
    if not emulator.exists():
        pytest.skip("no emulator is installed: apt-get install qemu-user")
    link = tmp_path / "aarch64-binfmt-P"
    link.symlink_to(emulator)
    cli.instance.add("qemu-aarch64", ARM64.match, link, flags)
    path = install(tmp_path / "dynamic", DYNAMIC)
    found = explain(cli, path)
    assert (found["runs"], f"its dynamic linker {LINKER} (glibc) is missing" in found["reason"]) == (False, True)
    assert LINKER in run(cli.instance.entering([str(path)])).stderr  # QEMU's own message


# No entry takes it


def test_the_emulator_is_here(cli: Cli, tmp_path: Path) -> None:
    """The file's kind is shown, and how to register its emulator: by the config, or by a line that this leaves out."""
    path = foreign_program(tmp_path / "foreign", CATALOG["riscv64"])
    found = explain(cli, path)
    assert (found["runs"], found["errno"], found["kind"], found["architecture"]) == (False, "ENOEXEC", "elf", "riscv64")
    assert "an ELF file for riscv64, 64 bits, little endian, static, and no entry takes it" in found["reason"]
    assert "run `binfmtd apply` as root" in found["remedy"]
    (named,) = cli("explain", "--json", str(path), config='architectures = ["riscv64"]\n').json
    assert f"run `binfmtd apply --config {cli.config}` as root" in named["remedy"]
    done = cli("explain", "--json", str(path), config='architectures = ["arm"]\n')
    (left_out,) = done.json
    assert "binfmtd --arch riscv64" in left_out["remedy"]
    assert left_out["config"] == 'architectures = ["riscv64"]'
    assert cli("--arch", "riscv64").status == 0  # as the remedy says
    assert explain(cli, path)["entry"] == "qemu-riscv64"
    assert really(cli, path) == 42


def test_the_emulator_is_not_here(cli: Cli, tmp_path: Path) -> None:
    """The remedy for a missing emulator is shown, and a handler of the config that waits for its interpreter."""
    path = foreign_program(tmp_path / "foreign", CATALOG["riscv64"])
    nowhere = f"[emulators]\npaths = ['{tmp_path}/none/qemu-{{name}}']\n"
    (found,) = cli("explain", "--json", str(path), config=nowhere).json
    assert emulators_remedy("riscv64", [f"{tmp_path}/none/x"]) in found["remedy"]
    wasm = install(tmp_path / "module", b"\0asm\x01\0\0\0")
    handler = "[handlers.mine]\nmagic = '\\x00asm'\ninterpreter = '/nowhere/wasmtime'\n"
    (found,) = cli("explain", "--json", str(wasm), config=handler).json
    assert "handler mine" in found["remedy"]
    assert "waiting: no executable file at /nowhere/wasmtime" in found["remedy"]


def test_known_kinds(cli: Cli, tmp_path: Path) -> None:
    """A file that is not ELF is recognised too; the explanation has a suitable program, and config lines that work."""
    program = install(tmp_path / "wasmtime", exits_with(9))
    path = install(tmp_path / "module", b"\0asm\x01\0\0\0")
    found = explain(cli, path)
    assert (found["kind"], "wasmtime" in found["remedy"]) == ("wasm", True)
    config = found["config"].replace("/usr/bin/wasmtime", str(program))
    assert cli("apply", config=f"architectures = []\n{config}").status == 0
    assert really(cli, path) == 9


# The command


def test_several_files(cli: Cli, tmp_path: Path, program: Path) -> None:
    """Files are explained one after the other; status 1 if one would not run, 2 without a file."""
    foreign = foreign_program(tmp_path / "foreign", ARM64)
    assert cli("explain", str(program), str(program)).status == 0
    done = cli("explain", "--json", str(program), str(foreign), str(tmp_path / "missing"))
    assert (done.status, [each["runs"] for each in done.json]) == (1, [True, False, False])
    assert cli("explain").status == 2


def test_a_root_tree(cli: Cli, tmp_path: Path, program: Path) -> None:
    """With --root all paths, links and interpreters are those inside of the tree; a directory means the files in it."""
    cli.instance.add("qemu-aarch64", ARM64.match, EMULATOR, "")
    tree = tmp_path / "tree"
    (tree / "usr" / "bin").mkdir(parents=True)
    (tree / "bin").symlink_to("/usr/bin")
    (tree / "sh").symlink_to("/bin/native")
    shutil.copy(program, tree / "usr" / "bin" / "native")
    foreign_program(tree / "usr" / "bin" / "foreign", ARM64)
    (tree / "usr" / "bin" / "data").write_bytes(b"not executable")
    script(tree / "usr" / "bin" / "script", "#!/bin/native\n")
    script(tree / "usr" / "bin" / "lost", f"#!{program}\n")  # which is outside
    done = cli("explain", "--json", "--root", str(tree), "/bin")
    assert done.status == 1
    assert {each["file"]: each["runs"] for each in done.json} == {
        "/bin/foreign": False,  # without F its emulator would have to be in the tree
        "/bin/lost": False,
        "/bin/native": True,
        "/bin/script": True,
    }
    for name, runs in (("foreign", False), ("lost", False), ("native", True), ("script", True)):
        ran = run(cli.instance.entering(["chroot", str(tree), f"/bin/{name}"]))
        assert (ran.status == 7) == runs, name
    assert explain(cli, "--root", tree, "/sh")["argv"] == ["/sh"]
    assert explain(cli, "--root", tree, "sh")["runs"]
    outside = explain(cli, "--root", tree, tree / "sh")
    assert (outside["errno"], "inside of the tree" in outside["remedy"]) == ("ENOENT", True)
    assert cli("explain", "--root", str(program), "/x").status == 2
    lines = cli("explain", "--root", str(tree), "/usr").stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"/usr/bin/{n}" for n in ("foreign", "lost", "native", "script")]


def test_where_binfmt_misc_cannot_be_seen(cli: Cli, tmp_path: Path, program: Path) -> None:
    """If binfmt_misc cannot be read, this is reported, native files are explained, and the rest is unknown."""
    foreign = foreign_program(tmp_path / "foreign", ARM64)
    cli.instance.shell(f"mount -t tmpfs cover {MOUNT_POINT}", check=True)
    done = cli("explain", "--json", str(program), str(foreign))
    assert "so the entries cannot be read from here" in done.message
    native, unknown = done.json
    assert (done.status, native["runs"], unknown["runs"], unknown["architecture"]) == (1, True, None, "aarch64")
    assert "binfmtd probe aarch64" in unknown["remedy"]


def test_nothing_steers_the_terminal(cli: Cli, tmp_path: Path) -> None:
    """Control characters in names and first lines do not reach the terminal."""
    path = script(tmp_path / "odd\x1b[31m", "#!/nowhere\x1b[0m\n")
    shown = cli("explain", str(path)).stdout
    assert "\x1b" not in shown
    assert "odd\\x1b[31m" in shown


def test_a_tree_that_is_very_deep(cli: Cli, tmp_path: Path, program: Path) -> None:
    """A tree of any depth, as in an image packed by an attacker, is walked to its end."""
    deep = tmp_path / "deep"
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for name in ["deep", *["a"] * 1200]:
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.link(program, "program", dst_dir_fd=descriptor)
    os.close(descriptor)
    done = cli("explain", str(deep))
    assert (done.status, done.stderr) == (0, "")
    assert f"{deep}{'/a' * 1200}/program" in done.stdout
    subprocess.run(["rm", "-r", str(deep)], check=True)  # shutil, and so pytest, would descend recursively
