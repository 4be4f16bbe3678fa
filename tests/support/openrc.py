"""A Debian with OpenRC as process 1, started by systemd-nspawn, with binfmtd as a service of the default runlevel.

Like the machine of support.booted it has its own user namespace, and mounts its own binfmt_misc there.  binfmtd is
installed by `make install`, its service script and settings by copying them.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from binfmtd.catalog.names import find
from binfmtd.catalog.program import tiny_program
from support.booted import BOOT, CONFIG, MAKE_SECONDS, MOUNT_POINT, NSPAWN, PROGRAM, System, make_tree
from support.cli import CHECKOUT, Result, run
from support.instance import namespace_of_its_own
from support.programs import exits_with
from support.waiting import SLOWNESS, wait_until

PACKAGES = ("openrc", "procps", "python3-pydantic", "python3-pyinotify", "python3-structlog")
SERVICE = "binfmtd"
INIT = "/sbin/openrc-init"
EMULATOR = "/usr/bin/qemu-riscv64"
# systemd-nspawn makes /proc/sys read-only, and OpenRC's own service procfs does nothing in its containers.
MOUNTING = f"""#!/sbin/openrc-run
depend() {{
    before {SERVICE}
}}
start() {{
    mount -o remount,bind,rw /proc/sys
    mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
}}
"""


class OpenrcMachine(System):
    """One machine, from its boot to ``close``, with a config and an emulator for riscv64 that exits with ``status``."""

    def __init__(self, directory: Path, config: str, status: int) -> None:
        self.root = directory / "root"
        self.root.mkdir(parents=True)
        for command in (
            ["tar", "--extract", f"--file={make_tree(packages=PACKAGES)}", f"--directory={self.root}"],
            ["make", "-C", str(CHECKOUT), "install", "PREFIX=/usr", f"DESTDIR={self.root}"],
        ):
            done = run(command, timeout=MAKE_SECONDS)
            assert done.status == 0, done.stderr
        self._add("/etc/init.d/binfmtd", (CHECKOUT / "packaging/openrc/binfmtd.initd").read_bytes(), "default")
        self._add("/etc/init.d/mounting", MOUNTING.encode(), "boot")
        self.write("/etc/conf.d/binfmtd", (CHECKOUT / "packaging/openrc/binfmtd.confd").read_text())
        self.write(CONFIG, config)
        self._add(EMULATOR, exits_with(status))
        self._add(PROGRAM, tiny_program(find("riscv64")))
        self._log = (directory / "console.log").open("wb")
        options = [option for option in NSPAWN if option != "--boot"]
        boot = [*options, f"--directory={self.root}", INIT]
        self._nspawn = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", BOOT, "sh", *boot],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._leader = wait_until(self._find_leader, 60, "process 1 of the machine")
            namespace_of_its_own(self._leader)  # and so no binfmt_misc of ours
            wait_until(self.is_up, 120, "the service of the default runlevel")
        except BaseException as error:
            error.add_note(self.console())
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill process 1 of the machine, as a power cut would; the kernel then kills its other processes."""
        for pid in _descendants(self._nspawn.pid):
            if _name(pid) == Path(INIT).name:
                os.kill(pid, 9)
        self._nspawn.wait(60 * SLOWNESS)
        self._log.close()
        shutil.rmtree(self.root)

    def entering(self, *argv: str) -> list[str]:
        return ["nsenter", "--target", str(self._leader), "--all", "--", *argv]

    def is_up(self) -> bool:
        return self.service("status").status == 0

    def service(self, command: str) -> Result:
        """Run ``rc-service binfmtd COMMAND``."""
        return self.run("rc-service", SERVICE, command)

    def console(self) -> str:
        """Return what the machine has printed since its boot."""
        return Path(self._log.name).read_text(errors="replace")

    def log(self) -> str:
        """Return the daemon's log."""
        return self.run("cat", "/var/log/binfmtd.log").stdout

    def pid(self) -> int:
        """Return the id of the daemon's process inside, or 0 if none runs."""
        done = self.run("binfmtd", "status", "--json")
        return int(done.json["pid"] or 0) if done.stdout else 0

    def _add(self, path: str, content: bytes, runlevel: str = "") -> None:
        """Make an executable file, and start it as a service in this runlevel."""
        file = self.root / path.lstrip("/")
        file.write_bytes(content)
        file.chmod(0o755)
        if runlevel:
            link = self.root / "etc/runlevels" / runlevel / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)

    def _find_leader(self) -> int:
        """Return the id of the machine's process 1 in our namespace, or 0."""
        assert self._nspawn.poll() is None, self.console()
        return next((pid for pid in _descendants(self._nspawn.pid) if _name(pid) == Path(INIT).name), 0)


def _descendants(pid: int) -> Iterator[int]:
    """Yield the processes below this one, each before its own children."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return
    for child in children:
        yield child
        yield from _descendants(child)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""
