"""docs/howto: its shell commands, the commands of binfmtd in them, and its configs.

tests/container/test_howto.py checks what takes podman, kubectl or systemd.
"""

import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.howto import DIRECTORY, Block, blocks

from binfmtd.cli.main import COMMANDS, module_of
from binfmtd.config.parse import parse
from binfmtd.errors import UsageError

COMMAND = re.compile(rf"(?:^|\s)binfmtd ((?:{'|'.join(COMMANDS)})\b.*)$")
SECTIONS = ("Check", "Remove", "What was run")


def names(found: list[Block]) -> list[str]:
    return [f"{block.page}-{number}" for number, block in enumerate(found)]


@pytest.mark.parametrize("block", blocks("sh"), ids=names(blocks("sh")))
def test_the_shell_reads_it(block: Block) -> None:
    """A shell parses the commands without an error."""
    done = subprocess.run(["sh", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the page and the words of each command of binfmtd, also of one in a container."""
    for block in blocks("sh"):
        for line in block.text.splitlines():
            if match := COMMAND.search(line.partition(" #")[0]):
                yield block.page, shlex.split(match[1])


def accepted(words: list[str]) -> bool:
    parser = importlib.import_module(module_of(words[0])).parser()
    try:
        parser.parse_args(words[1:])
    except UsageError:
        return False
    return True


def test_the_commands_exist() -> None:
    """binfmtd accepts each of its commands in the pages, with these options."""
    found = list(commands())
    assert len(found) > 10
    assert [(page, words) for page, words in found if not accepted(words)] == []


def test_a_wrong_option_is_found() -> None:
    """An option that does not exist is not accepted."""
    assert not accepted(["run", "--own-instances-of-mine"])


@pytest.mark.parametrize("block", blocks("toml"), ids=names(blocks("toml")))
def test_the_config_is_valid(block: Block) -> None:
    """The parser of the config knows each key, and accepts its value."""
    parse(block.text, block.page)


@pytest.mark.parametrize("page", sorted(DIRECTORY.glob("[a-z]*.md")), ids=lambda page: page.name)
def test_the_sections(page: Path) -> None:
    """Each page has a check, a removal, and what was run of it."""
    headings = re.findall(r"(?m)^## (.+)$", page.read_text(encoding="utf-8"))
    assert [section for section in SECTIONS if section not in headings] == []
    assert any(heading.startswith("After a re") for heading in headings)
