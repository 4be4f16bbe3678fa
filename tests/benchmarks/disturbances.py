"""Disturbances of entries that a build needs, each as a real program makes it.

A disturbance writes as that program does, or runs the program itself.  Sources:

- tonistiigi/binfmt: cmd/binfmt/main.go at commit 097ba97 (``uninstall``, ``parseUninstall``, ``install``).
- multiarch/qemu-user-static: containers/latest/register.sh at commit 1530f63, which then executes QEMU's
  scripts/qemu-binfmt-conf.sh: that writes one line for each architecture.
- update-binfmts: binfmt-support 2.2.2, src/update-binfmts.c (``act_enable``, ``act_disable``, ``act_install``,
  ``unload_binfmt_misc``).  The real program runs here.
- the emulator's package: dpkg replaces the file by a rename, and the package's scripts run later (50 ms here, which is
  less than dpkg takes).  Debian's older qemu-user-static runs ``update-binfmts --install`` (debian/binfmt-update-in of
  truenas/pkg-qemu at commit 03edabb; its entries lack the flag F, ours have it).  qemu-user-binfmt 10.0.13 of Debian 13
  triggers systemd's package, whose postinst executes ``systemctl restart systemd-binfmt``.
- systemd-binfmt.service of systemd 257: a restart runs ``systemd-binfmt --unregister``, then ``systemd-binfmt``.  The
  real program runs here.

Each disturbance goes on if the kernel refuses a write, as these programs do.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.contestants import INTERPRETERS, LINES, MATCHES, SYSTEMD_BINFMT, scratch
from support import binfmt_support
from support.binfmt_d import put_binfmt_d
from support.instance import MOUNT_POINT, Instance

from binfmtd.formats.register_line import encode_line
from binfmtd.model.handler import Flags, Registration

ARCHITECTURE = "aarch64"
NAME = f"qemu-{ARCHITECTURE}"
EMULATORS = [name for name in LINES if name.startswith("qemu-")]
BEFORE_POSTINST = 0.05  # seconds
REFUSALS = {errno.ENOENT, errno.EEXIST, errno.EROFS, errno.EBUSY}
REGISTER_ALL = 'for line; do printf %s "$line" >register || :; done'
RESET = f"""
cd {MOUNT_POINT}
find {MOUNT_POINT} -type f -name 'qemu-*' -exec sh -c 'echo -1 >"$1"' sh {{}} \\;
{REGISTER_ALL}
"""


@contextmanager
def may_be_refused() -> Iterator[None]:
    """Ignore the error if the entry is missing or exists already, or the instance is sealed or in use."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise


class Host:
    """One instance with an entry for each emulator; that of aarch64 is a separate file, which can be upgraded."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        self.instance = instance
        self.directory = directory
        self.emulator = self.directory / NAME
        self._versions = [shutil.copy(INTERPRETERS[NAME], self.directory / f"version-{number}") for number in (1, 2)]
        self.replace_the_emulator()
        self.interpreters = {name: INTERPRETERS[name] for name in EMULATORS} | {NAME: str(self.emulator)}
        self.lines = {
            name: encode_line(name, Registration(MATCHES[name], path, Flags.F))
            for name, path in self.interpreters.items()
        }

    @property
    def config(self) -> str:
        """The config with which the daemon keeps these entries."""
        emulators = f'[emulators]\nflags = "F"\n[emulators.{ARCHITECTURE}]\ninterpreter = "{self.emulator}"\n'
        return f'architectures = ["all"]\n{emulators}'

    def replace_the_emulator(self, pause: float = 0.0) -> None:
        """Put another file in its place, as dpkg does."""
        self._versions.reverse()
        beside = self.directory / f"{NAME}.dpkg-new"
        os.link(self._versions[0], beside)
        beside.rename(self.emulator)
        time.sleep(pause)

    def is_mounted(self) -> bool:
        return os.path.exists(self.instance.path("register"))

    def mount(self) -> None:
        """Mount the instance unless it is mounted."""
        if not self.is_mounted():
            self.instance.run(["mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT])

    def restore(self) -> None:
        """Register all entries as they were, where no daemon does."""
        self.mount()
        self.instance.write("status", b"1")
        for name in EMULATORS:
            self.register(name)
        self.write(NAME, b"1")
        if str(self.emulator) not in self.instance.read(NAME):
            self.remove()
            self.register()

    def write(self, name: str, data: bytes) -> None:
        """Write as a shell, Go's os.WriteFile and fopen(3) do: the file is truncated first, which inotify reports."""
        with may_be_refused():
            self.instance.write(name, data, truncate=True)

    def remove(self, name: str = NAME) -> None:
        self.write(name, b"-1")

    def register(self, name: str = NAME) -> None:
        self.write("register", self.lines[name])


class Disturbance(NamedTuple):
    """An action on the entries; in the default at most ``limit`` of 200 may break a build, with None any number."""

    what: str
    do: Callable[[Host], object]
    limit: int | None = None


def _remove_and_register(host: Host, seconds: float) -> None:
    host.remove()
    time.sleep(seconds)
    host.register()


def _uninstall_and_install(host: Host) -> None:
    """Remove the first name that ends in -aarch64, the stand-in if there is one; another process registers again."""
    names = sorted(name for name in host.instance.all_names() if name.endswith(f"-{ARCHITECTURE}"))
    host.remove(names[0] if names else NAME)
    host.instance.run(["sh", "-c", f"cd {MOUNT_POINT}; {REGISTER_ALL}", "sh", os.fsdecode(host.lines[NAME])])


def _uninstall_all(host: Host) -> None:
    """Remove each name, stand-ins as well, in alphabetical order; list all names again before each removal."""
    for name in sorted(host.instance.all_names()):
        if name in sorted(host.instance.all_names()):
            host.remove(name)


def _another_interpreter(host: Host) -> None:
    """Register another interpreter under the name, which is newer than both entries of the daemon."""
    host.remove()
    host.write("register", encode_line(NAME, Registration(MATCHES[NAME], "/usr/bin/false", Flags.F)))


def _reset(host: Host) -> None:
    """Remove each name that begins with qemu-, in a process each, and register all; stand-ins do not begin so."""
    host.instance.run(["sh", "-c", RESET, "sh", *map(os.fsdecode, host.lines.values())])


def _unmount(host: Host) -> None:
    """Unmount all mounts at the mount point but the last, which cannot be unmounted from inside."""
    host.instance.run(["sh", "-c", f"while umount {MOUNT_POINT}; do :; done"])


REMOVAL = Disturbance("removal by name", Host.remove, 0)
BY_NAME = (
    REMOVAL,
    Disturbance("disable: 0 to the entry", lambda host: host.write(NAME, b"0"), 0),
    *(
        Disturbance(
            f"remove and register, {pause:g} ms in between", partial(_remove_and_register, seconds=pause / 1e3), 0
        )
        for pause in (0.1, 1, 50)
    ),
    Disturbance("tonistiigi/binfmt --uninstall arm64; --install arm64", _uninstall_and_install, 0),
)
ANOTHER_INTERPRETER = Disturbance("another interpreter under the name", _another_interpreter, 10)
ALL_UNINSTALLED = Disturbance("tonistiigi/binfmt --uninstall '*'", _uninstall_all, 2)
RESET_BY_NAME = Disturbance("multiarch/qemu-user-static --reset", _reset, 2)
FLUSH = Disturbance("flush: -1 to status", lambda host: host.write("status", b"-1"), 25)
SWITCHED_OFF = Disturbance("switched off: 0 to status", lambda host: host.write("status", b"0"), 25)
UNMOUNTED = Disturbance("unmounted everywhere", _unmount)


def disturbances(host: Host) -> list[Disturbance]:
    """Return all disturbances for which this machine has the programs."""
    found = [
        *BY_NAME,
        *_of_update_binfmts(host),
        ANOTHER_INTERPRETER,
        ALL_UNINSTALLED,
        RESET_BY_NAME,
        *_of_systemd_binfmt(host),
        FLUSH,
        SWITCHED_OFF,
        UNMOUNTED,
    ]
    return sorted(found, key=lambda each: each.limit is None)


@cache
def _update_binfmts() -> tuple[str, dict[str, str]] | None:
    """Fetch it once: all modes have the same disturbances."""
    try:
        return binfmt_support.update_binfmts(scratch())
    except binfmt_support.UnavailableError as reason:
        print(f"builds: without update-binfmts: {reason}")
        return None


def _of_update_binfmts(host: Host) -> Iterator[Disturbance]:
    if (found := _update_binfmts()) is None:
        return
    program, environment = found
    handlers = {name: (MATCHES[name], host.interpreters[name]) for name in EMULATORS}
    admin = binfmt_support.admin_directory(host.directory / "admin", handlers)
    magic, mask = binfmt_support.escaped(MATCHES[NAME])

    def run(*options: str) -> None:
        command = [program, "--admindir", str(admin), "--package", binfmt_support.PACKAGE, *options]
        host.instance.run(command, env=os.environ | environment)

    def disable_and_enable(_: Host) -> None:
        run("--disable", NAME)
        run("--enable", NAME)

    def upgrade(host: Host) -> None:
        host.replace_the_emulator(BEFORE_POSTINST)
        match = ("--magic", magic, "--mask", mask, "--offset", "0")
        run("--install", NAME, str(host.emulator), *match, "--fix-binary", "yes")

    yield Disturbance("update-binfmts --disable NAME; --enable NAME", disable_and_enable, 0)
    yield Disturbance("emulator upgraded; update-binfmts --install", upgrade, 0)
    yield Disturbance("update-binfmts --disable, which unmounts", lambda _: run("--disable"))


def _of_systemd_binfmt(host: Host) -> Iterator[Disturbance]:
    if not Path(SYSTEMD_BINFMT).exists():
        print(f"builds: without systemd-binfmt: {SYSTEMD_BINFMT} is not here")
        return
    rules = put_binfmt_d(host.instance, scratch())["/usr/lib/binfmt.d"]
    (rules / "rules.conf").write_bytes(b"\n".join(host.lines.values()) + b"\n")

    def restart(host: Host) -> None:
        host.instance.run([SYSTEMD_BINFMT, "--unregister"])
        host.instance.run([SYSTEMD_BINFMT])

    def upgrade(host: Host) -> None:
        host.replace_the_emulator(BEFORE_POSTINST)
        restart(host)

    yield Disturbance("systemctl restart systemd-binfmt", restart, 25)
    yield Disturbance("emulator upgraded; systemctl restart systemd-binfmt", upgrade, 25)
