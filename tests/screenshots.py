"""Take the screenshots of docs/metrics.md: ``make screenshots``.

A daemon in a private instance keeps the entries of real emulators, and repairs what this program removes.  A headless
Chromium loads its status page.
"""

import os
import socket
import sys
import tempfile
from pathlib import Path

from support.browser import chromium, show
from support.daemon import Daemon
from support.instance import Instance
from support.waiting import wait_until

DOCS = Path(__file__).parents[1] / "docs"
SHOTS = {
    "status-light.png": ("light", (900, 900)),
    "status-dark.png": ("dark", (900, 900)),
    "status-narrow.png": ("light", (360, 740)),
}
LARGEST = 100_000  # bytes
ENTRIES = ("qemu-aarch64", "qemu-riscv64", "qemu-s390x")
CONFIG = r"""
architectures = ["arm64", "riscv64", "s390x"]
[metrics]
listen = "127.0.0.1:{port}"
[handlers.wine]
magic = 'MZ'
interpreter = "/usr/bin/wine"
"""


def disturb(instance: Instance, daemon: Daemon) -> None:
    """Remove and disable entries as other programs do, and wait for the repairs."""
    repairs = 0
    for name, written in ((ENTRIES[0], b"-1"), (ENTRIES[1], b"0"), (ENTRIES[2], b"-1"), ("status", b"-1")):
        instance.write(name, written)
        repairs += len(ENTRIES) if name == "status" else 1
        daemon.wait_status(lambda status: status["repairs"] == repairs, f"the repair of {name}")  # noqa: B023  at once
    instance.register(b":python3.13:M::\\xf3\\x0d\\x0d\\x0a::/usr/bin/python3.13:")
    wait_until(lambda: set(ENTRIES) <= set(instance.names()), what="the proper entries")
    daemon.wait_status(lambda status: status["foreign"] and status["state"] == "waiting", "the status")


def main() -> int:
    """Take the screenshots; return 1 if one is larger than a page should load."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    too_large = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, Instance() as instance:
        daemon = Daemon(instance, Path(directory) / "etc", CONFIG.format(port=port))
        try:
            daemon.wait_ready()
            disturb(instance, daemon)
            with chromium(Path(directory) / "profile") as browser:
                for name, (scheme, size) in SHOTS.items():
                    show(browser, scheme, size)
                    browser.get(f"http://127.0.0.1:{port}/status")
                    browser.save_screenshot(str(DOCS / name))
                    if os.path.getsize(DOCS / name) > LARGEST:
                        too_large.append(name)
        finally:
            daemon.close()
    if too_large:
        sys.stderr.write(f"screenshots: larger than {LARGEST} bytes: {', '.join(too_large)}\n")
    return 1 if too_large else 0


if __name__ == "__main__":
    sys.exit(main())
