"""Root trees of other architectures with a dynamic program, from Debian's C libraries for cross compilers.

Those packages are for amd64 and all architectures, so any mirror has them.
"""

import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from support import imported
from support.cli import CHECKOUT
from support.debian_qemu import download

SOURCE = """
void exit(int status);
__attribute__((force_align_arg_pointer)) void begin(void) { exit(0); }
"""


class CrossLibrary(NamedTuple):
    """A C library: its package, the directory of its files, and the path of its dynamic linker in a tree."""

    package: str
    triplet: str
    linker: str


LIBRARIES = {  # by the beginning of the names of the deep programs
    "aarch64": CrossLibrary("libc6-arm64-cross", "aarch64-linux-gnu", "/lib/ld-linux-aarch64.so.1"),
    "armv7": CrossLibrary("libc6-armhf-cross", "arm-linux-gnueabihf", "/lib/ld-linux-armhf.so.3"),
    "i386": CrossLibrary("libc6-i386-cross", "i686-linux-gnu", "/lib/ld-linux.so.2"),
    "ppc64le": CrossLibrary("libc6-ppc64el-cross", "powerpc64le-linux-gnu", "/lib64/ld64.so.2"),
    "riscv64": CrossLibrary("libc6-riscv64-cross", "riscv64-linux-gnu", "/lib/ld-linux-riscv64-lp64d.so.1"),
    "s390x": CrossLibrary("libc6-s390x-cross", "s390x-linux-gnu", "/lib/ld64.so.1"),
}


def build_module() -> ModuleType:
    """Import binfmtd/host/deep_programs/source/build.py, which is in no package."""
    return imported(CHECKOUT / "binfmtd/host/deep_programs/source/build.py")


def dynamic_tree(machine: str, tree: Path) -> Path:
    """Make a root tree whose ``/bin/true`` is a dynamic PIE; skip the test if it cannot be made."""
    build = build_module()
    if not build.compiler_version():
        pytest.skip("takes clang-19 and lld-19, which only Debian 13 has; `make test-emulators` installs them there")
    library = LIBRARIES[machine]
    unpacked = tree.with_name(f"{tree.name}.unpacked")
    subprocess.run(["dpkg-deb", "-x", str(download("trixie", library.package)), str(unpacked)], check=True)
    found = unpacked / "usr" / library.triplet / "lib"
    for directory in ("bin", "lib"):
        (tree / directory).mkdir(parents=True)
    linker = tree / library.linker.removeprefix("/")
    linker.parent.mkdir(exist_ok=True)
    shutil.copyfile(found / linker.name, linker)
    linker.chmod(0o755)
    shutil.copyfile(found / "libc.so.6", tree / "lib" / "libc.so.6")
    source, compiled = tree.with_name("true.c"), tree.with_name("true.o")
    source.write_text(SOURCE if machine == "i386" else SOURCE.replace("__attribute__((force_align_arg_pointer))", ""))
    flags = [*build.TARGETS[machine], "-ffreestanding", "-fPIE", "-O1", "-c"]
    subprocess.run([build.CLANG, *flags, str(source), "-o", str(compiled)], check=True)
    link = ["--entry=begin", "-pie", f"--dynamic-linker={library.linker}", "-z", "max-page-size=65536"]
    files = [str(compiled), str(tree / "lib" / "libc.so.6"), "-o", str(tree / "bin" / "true")]
    subprocess.run([build.LLD, *link, "--allow-shlib-undefined", *files], check=True)
    return tree
