"""A Debian with OpenRC as process 1, started by systemd-nspawn, with binfmtd as a service of the default runlevel.

Like the machine of support.booted it has its own user namespace, and mounts its own binfmt_misc there.  binfmtd is
installed by `make install`, its service script and settings by copying them.
"""

from pathlib import Path

from binfmtd.catalog.names import find
from binfmtd.catalog.program import tiny_program
from support.booted import CONFIG, MOUNT_POINT, PROGRAM, NspawnMachine, make_tree
from support.cli import CHECKOUT, Result, run
from support.downloads import MAKE_SECONDS
from support.programs import exits_with

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


class OpenrcMachine(NspawnMachine):
    """One machine, from its boot to ``close``, with a config and an emulator for riscv64 that exits with ``status``."""

    init = Path(INIT).name
    boot_seconds = 120

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
        self._boot(directory, INIT)

    def is_up(self) -> bool:
        return self.service("status").status == 0

    def service(self, command: str) -> Result:
        """Run ``rc-service binfmtd COMMAND``."""
        return self.run("rc-service", SERVICE, command)

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
