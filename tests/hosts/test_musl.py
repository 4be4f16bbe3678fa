"""A foreign root directory without glibc, whose programs use musl or are static.

Debian has musl for arm64, and a cross compiler that links against it.  No Python for musl can be had from Debian or
PyPI, so binfmtd itself runs on glibc here.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import downloads
from support.cli import CHECKOUT, Cli, run
from support.foreign_tree import arm64_archive
from support.instance import Instance
from support.required import Needs

pytestmark = pytest.mark.hosts

BUILD = CHECKOUT / "build" / "hosts"
COMPILER = "aarch64-linux-gnu-gcc"
LOADER = "lib/ld-musl-aarch64.so.1"
LIBRARIES = "usr/lib/aarch64-linux-musl"
SOURCE = """
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

/* Prints the machine, then executes itself with an argument, which is its exit status. */
int main(int argc, char **argv)
{
    struct utsname name;
    int status;

    if (argc > 1)
        return argv[1][0] - '0';
    uname(&name);
    if (fork() == 0)
        return execl("/bin/hello", argv[0], "7", (char *)0);
    wait(&status);
    printf("%s %d\\n", name.machine, WEXITSTATUS(status));
    return 0;
}
"""


@pytest.fixture(scope="module")
def musl(needs: Needs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with musl, one dynamic program, and a static busybox, all for arm64."""
    needs("mmdebstrap", COMPILER)
    BUILD.mkdir(parents=True, exist_ok=True)
    package = BUILD / "musl-arm64"
    if not (package / LOADER).exists():
        shutil.rmtree(package, ignore_errors=True)
        options = ["--variant=extract", "--architectures=arm64", "--include=musl,musl-dev"]
        downloads.make(["mmdebstrap", "--quiet", *options, "trixie", str(package)], package)
    root = tmp_path_factory.mktemp("musl")
    subprocess.run(["tar", "-C", str(root), "-xf", str(arm64_archive(BUILD))], check=True)
    (root / "lib").mkdir()
    shutil.copy(package / LIBRARIES / "libc.so", root / LOADER)
    libraries = package / LIBRARIES
    source = root / "hello.c"
    source.write_text(SOURCE)
    command = [COMPILER, "-nostdinc", f"-isystem{package}/usr/include/aarch64-linux-musl", "-nostdlib", "-no-pie"]
    command += ["-o", str(root / "bin" / "hello"), f"{libraries}/crt1.o", f"{libraries}/crti.o", str(source)]
    command += [f"-L{libraries}", "-lc", f"{libraries}/crtn.o", f"-Wl,-dynamic-linker,/{LOADER}"]
    subprocess.run(command, check=True)
    assert [path.name for path in (root / "lib").iterdir()] == ["ld-musl-aarch64.so.1"], "and no glibc"
    return root


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with Instance(everybody=True) as instance:
        yield Cli(instance, tmp_path)


def chroot(cli: Cli, root: Path, *argv: str) -> tuple[int, str]:
    done = run(cli.instance.entering(["chroot", str(root), *argv]))
    return done.status, done.stdout


def test_its_programs_run(cli: Cli, musl: Path) -> None:
    """Handlers with F serve a root without glibc and without QEMU: a dynamic program of musl, and a static one."""
    refused = run(cli.instance.entering(["chroot", str(musl), "/bin/hello"]))
    assert "Exec format error" in refused.stderr
    assert cli("apply", "--arch", "arm64").status == 0
    assert chroot(cli, musl, "/bin/hello") == (0, "aarch64 7\n")
    assert chroot(cli, musl, "/bin/sh", "-c", "uname -m && /bin/hello") == (0, "aarch64\naarch64 7\n")


def test_explain_follows_its_dynamic_linker(cli: Cli, musl: Path, tmp_path: Path) -> None:
    """`explain --root` finds musl's dynamic linker in the tree, and names the package where it is missing."""
    assert cli("apply", "--arch", "arm64").status == 0
    explained = cli("explain", "--root", str(musl), "/bin/hello")
    assert explained.status == 0, explained
    assert f"/{LOADER} (musl)" in explained.stdout
    incomplete = tmp_path / "incomplete"
    (incomplete / "bin").mkdir(parents=True)
    shutil.copy(musl / "bin" / "hello", incomplete / "bin" / "hello")
    explained = cli("explain", "--root", str(incomplete), "/bin/hello")
    assert explained.status != 0
    assert "into the tree (Debian's package musl:arm64)" in explained.stdout.partition("remedy:")[2]
    assert chroot(cli, incomplete, "/bin/hello")[0] != 0, "and so it is"


def test_without_f(cli: Cli, musl: Path) -> None:
    """Without F the kernel looks for the emulator in that root, and finds none; `explain` says so."""
    config = '[emulators]\nflags = "P"\n'
    assert cli("apply", "--arch", "arm64", config=config).status == 0
    assert chroot(cli, musl, "/bin/hello")[0] == 127
    explained = cli("explain", "--root", str(musl), "/bin/hello")
    assert explained.status != 0
    assert "flag F" in explained.stdout
