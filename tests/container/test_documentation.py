"""The lines of the documentation, as a reader would copy them: one after the other, on one machine.

Other tests check what the lines do; this one checks that each exits with 0.
"""

import re

import pytest
from support.cli import CHECKOUT
from support.containers import Machine
from support.waiting import wait_until

pytestmark = pytest.mark.container

PAGES = ("README.md", "docs/containers.md")
HOST_DIRECTORIES = ("/etc/binfmt.d", "/etc/binfmtd", "/var/lib/binfmtd")


def lines(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (CHECKOUT / page).read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if re.match(r"(docker|podman) (?!build)", line)]


@pytest.mark.parametrize("page", PAGES)
def test_each_line_works(page: str, machine: Machine, image: str, binfmt_image: str) -> None:
    """Every ``docker`` and ``podman`` line exits with 0; the host's directories are the test's own."""
    machine.name_images({"binfmtd": image, "binfmt": binfmt_image})
    host = machine.directory / "host"
    for directory in HOST_DIRECTORIES:
        (host / directory.lstrip("/")).mkdir(parents=True)
    wanted = lines(page)
    assert wanted
    for line in wanted:
        if container := re.match(r"\w+ exec (\S+) ", line):
            status = ("exec", container[1], "binfmtd", "status")
            wait_until(lambda: machine.podman(*status).status == 0, 60, "its daemon")  # noqa: B023  waited for
        done = machine.run("sh", "-c", re.sub(rf" ({'|'.join(HOST_DIRECTORIES)}):", rf" {host}\1:", line))
        assert done.status == 0, f"{line}\n{done.stderr}"
