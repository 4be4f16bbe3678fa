"""Every command of Docker in the documents, as it is written there, with a real Docker Engine.

The commands of a page run one after the other on one machine, as a reader would copy them.  Other tests check what they
do; this one checks that each exits with 0.
"""

import re
from pathlib import Path

import pytest
from support.documents import fragments, pages
from support.engine import Engine, StartEngine
from support.waiting import wait_until

pytestmark = pytest.mark.docker

CI = "docs/ci.md"  # its builds take the containerd image store: test_builds.py runs its commands


def test_pages() -> None:
    """The pages on Docker are among those that are tested, and each mark has a reason that says something."""
    assert {"README.md", "docs/containers.md", CI, "config/compose.yaml"} <= set(pages())
    reasons = [fragment.reason for page in pages() for fragment in fragments(page) if fragment.reason is not None]
    assert all(len(reason.split()) > 2 for reason in reasons)


@pytest.mark.parametrize("page", [page for page in pages() if page != CI])
def test_each_command_works(page: str, start_engine: StartEngine, checkout: Path) -> None:
    """Each command exits with 0."""
    engine = start_engine()
    directory = checkout / "config" if page.startswith("config/") else checkout
    engine.hide_namespace_in_compose(checkout / "config")
    ran = 0
    for fragment in fragments(page):
        if fragment.reason is None:
            start_its_container(engine, fragment.text)
            engine.run_line(fragment.text, directory)
            ran += 1
    assert ran or all(fragment.reason for fragment in fragments(page))


def start_its_container(engine: Engine, line: str) -> None:
    """Start the container of a ``docker exec``, which an earlier line may have stopped, and wait for its daemon."""
    if container := re.match(r"docker exec (\S+) ", line):
        engine.checked("start", container[1])
        status = ("exec", container[1], "binfmtd", "status")
        wait_until(lambda: engine.docker(*status).status == 0, 60, f"the daemon of {container[1]}")
