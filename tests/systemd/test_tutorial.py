"""docs/tutorial.md on a Debian 13: its commands run as they are written, and print what the page shows.

A block ```` ```sh ```` is run, a block ```` ```text ```` after it is what its commands print, where ``...`` stands for
any text, and ``<!-- exit status N -->`` before it is the status of its last command, otherwise 0.
"""

import re
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from support.booted import PACKAGES, Booted
from support.cli import CHECKOUT, Result
from support.waiting import wait_until

pytestmark = pytest.mark.systemd

PAGE = CHECKOUT / "docs" / "tutorial.md"
THERE = "/root/binfmtd"
# qemu-user with two of its emulators: all of them take 476 MB.
EMULATORS = ("aarch64", "riscv64")
OPTIONS = (
    "--dpkgopt=path-exclude=/usr/bin/qemu-*",
    *(f"--dpkgopt=path-include=/usr/bin/qemu-{name}" for name in EMULATORS),
)
BLOCK = re.compile(
    r"^(?:<!-- exit status (?P<status>\d+) -->\n)?```sh\n(?P<code>.*?)^```\n(?:```text\n(?P<shown>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
READS_ONLY = ("binfmtd status", "journalctl ")
DEADLINE_SECONDS = 30


class Block(NamedTuple):
    """The commands of one block, their exit status, what the page shows of their output, and the block's line."""

    code: str
    status: int
    shown: str | None
    line: int


def blocks(page: str) -> list[Block]:
    return [
        Block(found["code"], int(found["status"] or 0), found["shown"], page.count("\n", 0, found.start()) + 1)
        for found in BLOCK.finditer(page)
    ]


def matches(shown: str, printed: str) -> bool:
    """Return True if the output is as shown; ``...`` stands for any text, also of several lines."""
    return re.fullmatch(re.escape(shown).replace(r"\.\.\.", ".*"), printed, re.DOTALL) is not None


def test_every_block_is_found() -> None:
    """Each block of commands or of output on the page is one that the test runs or compares."""
    text = PAGE.read_text(encoding="utf-8")
    found = blocks(text)
    assert text.count("```sh\n") == len(found) > 10
    assert text.count("```text\n") == sum(block.shown is not None for block in found)
    assert text.count("<!-- exit status ") == sum(block.status != 0 for block in found)


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("one\n", "one\n", True),
        ("one\n", "one\ntwo\n", False),
        ("took ... ms\n...\n", "took 3 ms\nx\ny\n", True),
        ("took ... ms\n", "took 3 s\n", False),
        ("a.b\n", "axb\n", False),
    ],
)
def test_how_outputs_are_compared(shown: str, printed: str, expected: bool) -> None:
    assert matches(shown, printed) is expected


@pytest.fixture(scope="module")
def fresh(booting: type[Booted], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Yield a machine without binfmtd, with the packages that the page installs, and a checkout."""
    directory = tmp_path_factory.mktemp("tutorial")
    with booting(directory, packages=(*PACKAGES, "make", "qemu-user"), options=OPTIONS, installed=False) as machine:
        checkout = machine.root / THERE.lstrip("/")
        checkout.mkdir()
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True)
        packed = subprocess.run(
            ["tar", "--create", "--null", "--files-from=-"],
            cwd=CHECKOUT,
            check=True,
            capture_output=True,
            input=listed.stdout,
        )
        subprocess.run(["tar", "--extract", "--no-same-owner"], cwd=checkout, check=True, input=packed.stdout)
        yield machine


def test_the_tutorial(fresh: Booted) -> None:
    """Each block exits as the page says and prints what it shows; at the end nothing of binfmtd is left."""
    for block in blocks(PAGE.read_text(encoding="utf-8")):
        follow(fresh, block)
    left = fresh.run("sh", "-c", "command -v binfmtd; ls -d /etc/binfmtd /run/binfmtd /usr/share/doc/binfmtd")
    assert left.stdout == ""
    assert not {name for name in fresh.entries() if "qemu" in name}
    assert fresh.run("systemctl", "list-unit-files", "binfmtd*").stdout.count("binfmtd") == 0


def follow(machine: Booted, block: Block) -> None:
    """Run a block's commands; those that only read are repeated until the log has come as far as the page shows."""

    def run() -> Result:
        return machine.run("bash", "-c", f"exec 2>&1\ncd {THERE}\n{block.code}")

    def as_shown(done: Result) -> bool:
        return done.status == block.status and (block.shown is None or matches(block.shown, done.stdout))

    done = run()
    if all(line.startswith(READS_ONLY) for line in block.code.splitlines()) and not as_shown(done):
        wait_until(lambda: as_shown(run()), DEADLINE_SECONDS, f"what line {block.line} shows, in place of {done}")
    else:
        assert as_shown(done), f"line {block.line}: {block.code}{done.stdout}exit status {done.status}"
