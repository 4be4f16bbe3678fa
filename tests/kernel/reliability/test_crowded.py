"""An instance full of foreign entries (odd names, entries that come and go, 20,000 of them) disturbs no repair."""

import json
import subprocess
import time
from statistics import median
from typing import Any

from support import Times
from support.daemon import CONFIG, Daemon, StartDaemon
from support.instance import Instance
from support.waiting import IN_MODIFY, DirectoryWatch, wait_until

ODD = (
    "with blank",
    "back\\slash",
    "tab\there",
    "\\x41",
    "raw\udcff\udc80",
    "new\nline",
    "-n",
    "*",
    "\x1b[31mred",
    "é" * 100,
)


def line(name: str, magic: str) -> bytes:
    return b"|%s|M||%s||/usr/bin/true|" % (name.encode("utf-8", "surrogateescape"), magic.encode())


def test_odd_names_of_others(instance: Instance, start_daemon: StartDaemon) -> None:
    """Foreign entries with blanks, newlines or no UTF-8 in their names are left alone and shown in the status."""
    for number, name in enumerate(ODD):
        instance.register(line(name, f"odd-{number}"))
    before = {name: (instance.inode(name), instance.read(name)) for name in ODD}
    daemon = start_daemon(CONFIG)
    for _ in range(3):
        instance.remove("one")
        wait_until(lambda: "one" in instance.names(), what="the repair")
    status = daemon.wait_converged()
    assert {row["name"] for row in status["foreign"]} == set(ODD)
    assert {name: (instance.inode(name), instance.read(name)) for name in ODD} == before
    assert daemon.terminate() == 0


def test_odd_names_of_ours(instance: Instance, start_daemon: StartDaemon) -> None:
    """A handler with any name that the kernel accepts and TOML can express is repaired under that name."""
    ours = [name for name in ODD if "\udcff" not in name and "\n" not in name]
    config = "architectures = []\n"
    for number, name in enumerate(ours):
        quoted = name.replace("\\", "\\\\").replace("\t", "\\t").replace("\x1b", "\\u001b")
        config += f'[handlers."{quoted}"]\nmagic = "odd-{number}"\ninterpreter = "/usr/bin/true"\n'
    daemon = start_daemon(config)
    for name in ours:
        inode = instance.inode(name)
        instance.remove(name)
        instance.wait_registered_anew(name, inode)
    daemon.wait_converged()
    assert sorted(instance.names()) == sorted(ours)
    instance.remove("status")
    wait_until(lambda: sorted(instance.names()) == sorted(ours), what="all of them")


def test_entries_that_vanish_while_they_are_read(instance: Instance, start_daemon: StartDaemon, times: Times) -> None:
    """An entry that another process removes between the listing and the read counts as absent."""
    # With two handlers a flush is recognised even while the daemon does not read all events.
    daemon = start_daemon('settle = "0ms"\n' + CONFIG + CONFIG.split("\n", 2)[2].replace("one", "two"))
    churn = f"""
        cd {instance.mount_point}
        while :; do
            for n in 1 2 3 4 5 6 7 8; do echo ":churn-$n:E::churn-$n::/bin/true:" > register; done
            for n in 1 2 3 4 5 6 7 8; do echo -1 > churn-$n; done
        done
    """
    process = instance.popen(["sh", "-c", churn], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: any(name.startswith("churn-") for name in instance.names()), what="the churn")
    for _ in range(times(100)):
        inode = instance.inode("one")
        instance.remove("status")  # a flush does not count towards the contention of any entry
        instance.wait_registered_anew("one", inode)
        wait_until(lambda: "two" in instance.names(), what="the other proper entry")
    assert process.poll() is None, "the churn ended"
    process.kill()
    process.wait()
    daemon.wait_status(lambda status: status["state"] == "converged")
    assert not daemon.logs(level="error")
    assert all(line["event"] for line in daemon.logs()), "a traceback"


def repair_seconds(instance: Instance, daemon: Daemon) -> float:
    """Return the median time in seconds from a removal to an entry that serves.

    Removes the entry nine times: a tenth repair would be contention.
    """
    took = []
    for _ in range(9):
        daemon.wait_converged()
        with DirectoryWatch(instance.directory, IN_MODIFY) as watch:
            instance.remove("one")
            began = time.monotonic()
            watch.wait_for(lambda event: event.name == "register", what="the repair")
            took.append(time.monotonic() - began)
        wait_until(lambda: "one" in instance.names(), what="the proper entry")
    return median(took)


def test_twenty_thousand_foreign_entries(instance: Instance, start_daemon: StartDaemon, times: Times) -> None:
    """20,000 foreign entries cost a scan at start-up, and hardly any time during a repair."""
    daemon = start_daemon(CONFIG)
    alone = repair_seconds(instance, daemon)
    daemon.terminate()
    number = times(20_000)
    for each in range(number):
        instance.register(b":foreign-%d:M::foreign-%d::/usr/bin/true:" % (each, each))
    began = time.monotonic()
    daemon = start_daemon(CONFIG, ready=False)
    daemon.wait_ready(60)
    start = time.monotonic() - began
    crowded = repair_seconds(instance, daemon)
    print(
        f"{number} foreign entries: ready in {start:.2f} s, repair {crowded * 1e6:.0f} us; alone {alone * 1e6:.0f} us"
    )
    assert crowded < 20 * alone
    assert daemon.status()["foreign_count"] == {"enabled": number, "disabled": 0}


def state(daemon: Daemon, file: str) -> Any:
    """Return the entries in a file of the state directory."""
    return json.loads((daemon.state_directory / file).read_text())["entries"]


def test_twenty_thousand_entries_to_restore(instance: Instance, start_daemon: StartDaemon, times: Times) -> None:
    """20,000 entries to restore come back after a flush, also if the daemon has them only from its file."""
    config = 'architectures = []\nrestore = ["foreign-*"]\n'
    daemon = start_daemon(config)
    number = times(20_000)
    names = {f"foreign-{each}" for each in range(number)}
    for name in names:
        instance.register(f":{name}:M::{name}::/usr/bin/true:".encode())
    daemon.wait_status(lambda status: status["foreign_count"]["enabled"] == number, "all of them")
    # The thread that writes the files may have taken the status from a later pass than the file before it.
    wait_until(lambda: len(state(daemon, "foreign.json")) == number, what="the file with all of them")
    daemon.kill()
    instance.remove("status")
    start_daemon(config)
    wait_until(lambda: set(instance.names()) == names, 60, "all of them again")


def test_thousands_of_handlers(instance: Instance, start_daemon: StartDaemon, times: Times) -> None:
    """After a kill, thousands of entries are recognised by the ledger: with F an unknown entry would be replaced."""
    number = times(1_600)  # with these the config is nearly as large as it may be, and the ledger is larger
    mask = "\\xff" * 105 + "\\xfe"
    handlers = "".join(
        f"[handlers.handler-{each}]\nmagic = '\\x00{each:05}{'x' * 100}'\nmask = '{mask}'\n"
        "interpreter = '/usr/bin/true'\nflags = 'F'\n"
        for each in range(number)
    )
    config = f"architectures = []\n{handlers}"
    daemon = start_daemon(config, ready=False)
    daemon.wait_ready(120)
    before = instance.inodes()
    assert len(before) == number

    def recorded() -> bool:
        """Return True if the ledger has all entries: READY=1 waits five seconds for it at most."""
        inodes = {name: record["inode"] for name, record in state(daemon, "ledger.json").items()}
        return inodes == instance.all_inodes()

    wait_until(recorded, 60, "the ledger with all of them")
    assert (daemon.state_directory / "ledger.json").stat().st_size > 700 * number
    daemon.kill()
    daemon = start_daemon(config, ready=False)
    daemon.wait_ready(120)
    assert instance.inodes() == before
    assert daemon.status()["problem"] is None
