"""Root directories for other architectures, as archives; nothing is executed to make them.

For arm64 it has a static busybox from Debian's package, for riscv64 a program that a cross compiler makes
(``work.c``): a mirror need not have Debian's packages for riscv64.
"""

import shutil
import subprocess
from pathlib import Path

from support import downloads

APPLETS = (
    "sh",
    "true",
    "cat",
    "tar",
    "gzip",
    "gunzip",
    "sha256sum",
    "seq",
    "sort",
    "awk",
    "uname",
    "cmp",
    "find",
    "mkdir",
    "test",
)
WORK = Path(__file__).with_name("work.c")
CROSS_COMPILER = "riscv64-linux-gnu-gcc"


def arm64_archive(directory: Path) -> Path:
    """Return the archive of a root with a busybox for arm64; it is kept in ``directory``."""
    archive, package, root = _places(directory, "arm64")
    if not archive.exists():
        options = ["--variant=extract", "--architectures=arm64", "--include=busybox-static"]
        downloads.make(["mmdebstrap", "--quiet", *options, "trixie", str(package)], package)
        shutil.copy2(package / "usr" / "bin" / "busybox", root / "bin" / "busybox")
        for name in APPLETS:
            (root / "bin" / name).symlink_to("busybox")
        _pack(root, archive)
    return archive


def riscv64_archive(directory: Path) -> Path:
    """Return the archive of a root with ``/bin/work`` for riscv64; it is kept in ``directory``."""
    archive, _, root = _places(directory, "riscv64")
    if not archive.exists():
        command = [CROSS_COMPILER, "-static", "-O1", "-o", str(root / "bin" / "work"), str(WORK)]
        subprocess.run(command, check=True)
        _pack(root, archive)
    return archive


def _places(directory: Path, platform: str) -> tuple[Path, Path, Path]:
    archive, package, root = (directory / f"{kind}-{platform}" for kind in ("archive", "package", "root"))
    for path in (package, root):
        shutil.rmtree(path, ignore_errors=True)
    (root / "bin").mkdir(parents=True)
    (root / "tmp").mkdir()
    return archive, package, root


def _pack(root: Path, archive: Path) -> None:
    beside = archive.with_name(f"{archive.name}.new")
    subprocess.run(["tar", "-C", str(root), "-cf", str(beside), "."], check=True)
    beside.rename(archive)
