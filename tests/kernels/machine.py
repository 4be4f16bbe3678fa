"""A virtual machine with a kernel of our choice: boots, runs tests of this checkout, and powers itself off.

It is emulated, so it needs no KVM, and is some ten times slower than its host.  It shares nothing with the host: it
gets the checkout on one disk, and returns the results on another; all its other writes are dropped.
"""

import io
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kernels.images import Image

CHECKOUT = Path(__file__).parents[2]
# How many times longer than on its host the tests wait: more than what takes part in them was seen to take.
SLOWNESS = {"amd64": 10, "arm64": 10, "s390x": 40}
RESULTS_BYTES = 1 << 24
WITH_US = ("setpriv", "--pdeathsig", "TERM")  # it ends when we do
# The first word permits a test to use this machine's own instance (support/instance.py).
COMMAND_LINE = "binfmtd.test-machine console={console} panic=-1 loglevel=3"
# The emulator with its machine, and the console, of each architecture.
MACHINES = {
    "amd64": (("qemu-system-x86_64", "-cpu", "max"), "ttyS0"),
    "arm64": (("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a76"), "ttyAMA0"),
    "s390x": (("qemu-system-s390x", "-cpu", "max"), "ttysclp0"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A machine's kernel release, its results as JUnit's XML, both empty if it did not finish, and its duration."""

    release: str
    xml: bytes
    seconds: float


def run_tests(image: Image, arguments: Sequence[str], seconds: float, log: Path) -> Outcome:
    """Run pytest in a machine with these arguments.

    Its output goes to our standard output and to ``log``; after ``seconds`` the machine is switched off.
    """
    since = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        job, results = Path(scratch, "job.tar"), Path(scratch, "results.tar")
        slowness = os.environ.get("BINFMTD_TEST_SLOWNESS") or str(SLOWNESS[image.of.architecture])
        _pack(job, slowness, arguments)
        with results.open("wb") as file:
            file.truncate(RESULTS_BYTES)
        with log.open("wb") as output:
            machine = subprocess.Popen(
                [*WITH_US, "timeout", "--kill-after=10", f"{seconds:.0f}", *_command(image, job, results)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
            assert machine.stdout is not None
            while said := os.read(machine.stdout.fileno(), 65536):
                output.write(said)
                output.flush()
                sys.stdout.buffer.write(said)
                sys.stdout.flush()
            machine.wait()
        release, xml = _read(results, "release"), _read(results, "results.xml")
    return Outcome(release.decode().strip(), xml, time.monotonic() - since)


def _read(results: Path, name: str) -> bytes:
    try:
        with tarfile.open(results) as archive:
            file = archive.extractfile(name)
            return file.read() if file else b""
    except (tarfile.ReadError, KeyError):
        return b""


def _pack(job: Path, slowness: str, arguments: Sequence[str]) -> None:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout.split("\0")
    script = shlex.join(["exec", "sh", "/work/checkout/tests/kernels/init.sh", slowness, *arguments]).encode()
    with tarfile.open(job, "w") as archive:
        for name in filter(os.path.exists, (str(CHECKOUT / name) for name in names if name)):
            archive.add(name, f"checkout/{os.path.relpath(name, CHECKOUT)}", filter=_by_root)
        for package in CHECKOUT.glob("build/deb/*.deb"):  # of `make deb`, for tests/packages/test_deb_arm64.py
            archive.add(package, f"checkout/build/deb/{package.name}", filter=_by_root)
        member = tarfile.TarInfo("job")
        member.size = len(script)
        archive.addfile(member, io.BytesIO(script))


def _by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _command(image: Image, job: Path, results: Path) -> list[str]:
    def disk(serial: str, path: Path, *options: str) -> list[str]:
        """Return the options for a disk, which the machine finds by its serial number."""
        drive = ("if=none", f"id={serial}", f"file={path}", "format=raw", "cache=unsafe", *options)
        device = f"virtio-blk-{'ccw' if on_s390x else 'pci'},drive={serial},serial={serial}"
        return ["-drive", ",".join(drive), "-device", device]

    emulator, console = MACHINES[image.of.architecture]
    on_s390x = image.of.architecture == "s390x"
    random = "virtio-rng-ccw" if on_s390x else "virtio-rng-pci"
    return [
        *(*emulator, "-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048"),
        *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-device", random),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", f"{COMMAND_LINE.format(console=console)} {image.of.parameters}"),
        *disk("root", image.root, "snapshot=on"),
        *disk("job", job, "readonly=on"),
        *disk("results", results),
    ]
