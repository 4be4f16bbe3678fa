"""Files to boot virtual machines from: one root file system for all, and for each kernel the kernel and a small initrd.

mmdebstrap makes them from Debian's packages once, and anew if this file has changed.  The root file system has today's
Python also under a kernel of 2020: only the kernel is old.
"""

import hashlib
import lzma
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Kernel(NamedTuple):
    """A kernel of Debian's: suite, package, and Debian's name of the architecture.

    ``root``: the packages that the root file system has besides PACKAGES.  ``parameters``: for the command line.
    """

    suite: str
    package: str
    architecture: str = "amd64"
    root: tuple[str, ...] = ()
    parameters: str = ""


COMPILERS = ("gcc", "gcc-x86-64-linux-gnu")  # for programs of the tests, native and foreign
# The newest kernel of each suite; the results name its exact version.  Only 5.10 is an older one, 5.10.223, whose
# entries outlive their mounts: on later ones they go with the last mount, as from 6.7 on.
KERNELS = {
    "5.10": Kernel("bullseye", "linux-image-5.10.0-32-amd64"),
    "6.1": Kernel("bookworm", "linux-image-amd64"),
    "6.12": Kernel("trixie", "linux-image-amd64"),
    "7.2": Kernel("sid", "linux-image-amd64"),
    "arm64": Kernel("trixie", "linux-image-arm64", "arm64", root=COMPILERS),
    "arm64-16k": Kernel("trixie", "linux-image-arm64-16k", "arm64", root=COMPILERS),  # pages of 16 KiB
    "s390x": Kernel("sid", "linux-image-s390x", "s390x"),  # big-endian
    "apparmor": Kernel("trixie", "linux-image-amd64", root=("apparmor",), parameters="apparmor=1 security=apparmor"),
    "selinux": Kernel(
        "trixie",
        "linux-image-amd64",
        root=("policycoreutils", "selinux-policy-default", "selinux-utils"),
        parameters="selinux=1 security=selinux",
    ),
}
ROOT_SUITES = {"amd64": "trixie", "arm64": "trixie", "s390x": "sid"}  # not all mirrors have trixie's updates for s390x
PACKAGES = (
    "busybox-static",  # for the initrd
    "make",
    "mount",
    "procps",
    "python3-hypothesis",
    "python3-pydantic",
    "python3-pyinotify",
    "python3-pytest",
    "python3-pytest-xdist",
    "python3-structlog",
    "qemu-user",
    "systemd",  # for systemd-binfmt; process 1 is a script of ours
)
# The root of another architecture is unpacked but not configured, which would execute its programs.  So no package
# brings those that Debian takes for granted.
ESSENTIAL = (
    *("base-files", "base-passwd", "bash", "bsdutils", "coreutils", "dash", "debianutils", "diffutils", "findutils"),
    *("grep", "gzip", "hostname", "libc-bin", "login", "mawk", "ncurses-bin", "perl-base", "sed", "tar", "util-linux"),
)
CONFIGURE = (
    '--extract-hook=for file in passwd group; do cp "$1/usr/share/base-passwd/$file.master" "$1/etc/$file"; done',
    '--extract-hook=ln -s mawk "$1/usr/bin/awk"; ln -s gcc "$1/usr/bin/cc"',
    '--extract-hook=mkdir -p "$1/mnt" "$1/root" "$1/tmp" "$1/home"',
)
ROOT_SIZE = "3G"  # sparse
# Modules in Debian's kernels; what they depend on comes with them.  ext4 asks for crc32c without depending on it.
MODULES = (
    *("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_rng", "crc32c_generic", "ext4", "overlay", "autofs4"),
    "binfmt_misc",
)
# A mirror that is out of date is accepted.
MMDEBSTRAP = ("mmdebstrap", "--quiet", '--aptopt=Acquire::Check-Valid-Until "false"')
MIRROR = "deb http://deb.debian.org/debian {suite} main"  # for others: not all mirrors have their security updates
NATIVE = "amd64"  # the architecture of the machine that makes the images
# /dev/disk-SERIAL is a disk by its serial number (machine.py): the kernel may number the disks in any order.
# The disk root is the root file system, and job is a tar file with what to do there.
FIRST_PROCESS = """#!/busybox sh
for directory in proc sys dev root; do /busybox mkdir -p "/$directory"; done
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sysfs /sys
/busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do /busybox insmod "$module" || echo "initrd: $module was refused"; done
until [ -e /dev/disk-root ] && [ -e /dev/disk-job ] && [ -e /dev/disk-results ]; do
    for disk in /sys/block/vd*; do
        /busybox ln -sf "/dev/${disk##*/}" "/dev/disk-$(/busybox cat "$disk/serial")"
    done
    /busybox usleep 10000
done
/busybox mount -t ext4 /dev/disk-root /root
/busybox mkdir -p /root/work
/busybox tar -xf /dev/disk-job -C /root/work
for directory in proc sys dev; do /busybox mount --move "/$directory" "/root/$directory"; done
exec /busybox switch_root /root /bin/sh /work/job
"""


@dataclass(frozen=True, slots=True)
class Image:
    """The files to boot a kernel from."""

    root: Path
    kernel: Path
    initrd: Path
    of: Kernel


def image(version: str, directory: Path) -> Image:
    """Return the image of one of KERNELS, made in ``directory`` where it is not there yet."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    stamp = directory / "recipe"
    if not stamp.exists() or stamp.read_text() != recipe:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        stamp.write_text(recipe)
    kernel = KERNELS[version]
    name = "-".join(("root", kernel.architecture, *kernel.root[:1]))
    root, busybox = directory / f"{name}.ext4", directory / f"busybox-{kernel.architecture}"
    made = Image(root, directory / f"vmlinuz-{version}", directory / f"initrd-{version}", kernel)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        if not made.root.exists():
            _make_root(made, busybox, Path(scratch))
        if not made.initrd.exists():
            _make_kernel(made, busybox, Path(scratch))
    return made


def _make_root(made: Image, busybox: Path, scratch: Path) -> None:
    archive, unfinished = scratch / "root.tar", scratch / made.root.name
    architecture, packages = made.of.architecture, (*PACKAGES, *made.of.root)
    suite = ROOT_SUITES[architecture]
    if architecture == NATIVE:
        _run(*MMDEBSTRAP, "--variant=minbase", f"--include={','.join(packages)}", suite, str(archive))
    else:
        _extract((*ESSENTIAL, *packages), architecture, suite, archive, *CONFIGURE)
    with tarfile.open(archive) as files:
        content = files.extractfile("./usr/bin/busybox")
        assert content is not None
        busybox.write_bytes(content.read())
    _run("mke2fs", "-q", "-t", "ext4", "-d", str(archive), str(unfinished), ROOT_SIZE)
    unfinished.rename(made.root)


def _make_kernel(made: Image, busybox: Path, scratch: Path) -> None:
    archive, tree = scratch / "kernel.tar", scratch / "tree"
    _extract([made.of.package], made.of.architecture, made.of.suite, archive)
    with tarfile.open(archive) as files:
        wanted = (member for member in files if re.match(r"\./(boot/vmlinuz-|(usr/)?lib/modules/.)", member.name))
        files.extractall(tree, wanted, filter="data")
    (file,) = (*tree.glob("boot/vmlinuz-*"), *tree.glob("usr/lib/modules/*/vmlinuz"))
    content = {"init": FIRST_PROCESS.encode(), "busybox": busybox.read_bytes()}
    content |= {f"modules/{number:02}": module for number, module in enumerate(_modules(tree))}
    shutil.copy(file, made.kernel)
    unfinished = scratch / "initrd"
    unfinished.write_bytes(b"".join(_cpio(content)))
    unfinished.rename(made.initrd)


def _extract(packages: Sequence[str], architecture: str, suite: str, archive: Path, *options: str) -> None:
    """Unpack packages of any architecture, with those that they depend on."""
    mirror = [] if architecture == NATIVE else [MIRROR.format(suite=suite)]
    what = ["--variant=extract", f"--architectures={architecture}", f"--include={','.join(packages)}"]
    _run(*MMDEBSTRAP, *what, *options, suite, str(archive), *mirror)


def _modules(tree: Path) -> Iterator[bytes]:
    """Yield MODULES, each after those that it depends on; a module without a file is built into the kernel."""
    paths = {path.name.partition(".")[0].replace("-", "_"): path for path in tree.rglob("*.ko*")}
    order: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in order or name not in paths:
            return
        module = paths[name].read_bytes()
        if paths[name].suffix == ".xz":
            module = lzma.decompress(module)
        found = re.search(rb"\0depends=([^\0]+)\0", module)
        for other in found[1].decode().split(",") if found else ():
            visit(other.replace("-", "_"))
        order[name] = module

    for name in MODULES:
        visit(name)
    yield from order.values()


def _cpio(files: dict[str, bytes]) -> Iterator[bytes]:
    """Yield an archive as the kernel unpacks it (its Documentation/driver-api/early-userspace/buffer-format.rst)."""
    directories = {str(parent): b"" for name in files for parent in Path(name).parents if parent.name}
    for name, content in (directories | files | {"TRAILER!!!": b""}).items():
        mode = 0o40755 if name in directories else 0o100755
        # inode, mode, uid, gid, links, mtime, size, device and its own (two numbers each), length of the name, no sum
        fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        yield _padded(b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0")
        yield _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
