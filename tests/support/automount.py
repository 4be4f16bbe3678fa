"""An automount beneath the binfmt_misc of a private instance, as systemd has on a host; it answers only when told to.

The kernel asks the automount's process for a mount, and a process that opens the directory waits until that one answers
(Documentation/filesystems/autofs.rst).  The processes of its own process group do not wait.  This takes root.
"""

import os
import subprocess
import sys

from support import Closing
from support.instance import MOUNT_POINT, Instance

# In the holder's mount namespace, but in this machine's user namespace, since only its root may mount autofs.
# binfmt_misc is mounted by a process inside of the instance's user namespace: otherwise it would be this machine's.
PROGRAM = """
import ctypes, errno, fcntl, os, struct, subprocess, sys

point, inside = sys.argv[1], sys.argv[2:]
os.setpgid(0, 0)
asks, write = os.pipe()
subprocess.run([*inside, "umount", point], check=True)
options = f"fd={write},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"automount", point.encode(), b"autofs", 0, options.encode()):
    error = ctypes.get_errno()
    sys.exit("this kernel has no autofs" if error == errno.ENODEV else os.strerror(error))
os.close(write)
root = os.open(point, os.O_RDONLY)
mount = [*inside, "mount", "-t", "binfmt_misc", "binfmt_misc", point]
subprocess.run(mount, check=True)
print("done", flush=True)
for line in sys.stdin:
    if line == "umount\\n":
        while subprocess.run([*inside, "umount", point]).returncode:  # busy, while the daemon has it open
            pass
    if line == "wait\\n":
        packet = os.read(asks, 4096)
    if line == "answer\\n":
        subprocess.run(mount, check=True)
        fcntl.ioctl(root, 0x9360, struct.unpack_from("3I", packet)[2])  # AUTOFS_IOC_READY, with the packet's token
    print("done", flush=True)
"""


_NO_AUTOFS = "this kernel has no autofs"


class AutomountError(Exception):
    """This machine cannot have an automount; the message has the reason."""


class Automount(Closing):
    """The automount, from the moment when binfmt_misc is mounted over it to ``close``."""

    def __init__(self, instance: Instance) -> None:
        """Mount it and a new instance over it.  Raises AutomountError."""
        if os.geteuid() != 0:
            raise AutomountError("only root can mount an automount")
        inside = ["nsenter", "-U", "--preserve-credentials", "-m", "-t", str(instance.pid)]
        pipe = subprocess.PIPE
        command = ["nsenter", "-m", "-t", str(instance.pid), sys.executable, "-c", PROGRAM, MOUNT_POINT, *inside]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        try:
            self._done()
        except BaseException:
            self.close()
            raise

    def unmount(self) -> None:
        """Unmount binfmt_misc: the automount is seen."""
        self._tell("umount")

    def wait(self) -> None:
        """Wait until a process opens the directory: it blocks from now on."""
        self._tell("wait")

    def answer(self) -> None:
        """Mount binfmt_misc, and let the process continue that ``wait`` waited for."""
        self._tell("answer")

    def close(self) -> None:
        """End the automount's process: the kernel lets all that wait continue, without a mount."""
        self._process.kill()
        self._process.communicate()

    def _tell(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        self._done()

    def _done(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "done\n":
            message = self._process.communicate()[1].strip()
            assert message == _NO_AUTOFS, message
            raise AutomountError(message)
