import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from binfmtd.cli.main import COMMANDS

pytest.importorskip("shtab", reason="completions are made by shtab, which is among the development tools")

SCRIPT = Path(__file__).parents[2] / "docs" / "completions.py"
DRIVER = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_shtab_binfmtd binfmtd "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def completions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the file for each shell."""
    directory = tmp_path_factory.mktemp("completions")
    found = {}
    for shell in ("bash", "zsh", "fish"):
        made = subprocess.run([sys.executable, SCRIPT, shell], capture_output=True, check=True)
        found[shell] = directory / shell
        found[shell].write_bytes(made.stdout)
    return found


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["sta"], {"status"}),
        (["status", "--ch"], {"--check"}),
        (["--arc"], {"--arch"}),  # options without a command are apply's
        (["wait", "aar"], {"aarch64", "aarch64_be"}),
        (["export", "--format", "n"], {"nixos"}),
        (["explain", "--ro"], {"--root"}),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_bash_offers(completions: dict[str, Path], typed: list[str], offered: set[str]) -> None:
    """Bash offers the words that the commands' parsers have for what was typed."""
    if (bash := shutil.which("bash")) is None:
        pytest.skip("bash is not here")
    done = subprocess.run(
        [bash, "-c", DRIVER, "driver", str(completions["bash"]), "binfmtd", *typed],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_can_read_its_own(completions: dict[str, Path], shell: str) -> None:
    """Each shell parses its own completions without an error."""
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not here")
    done = subprocess.run([program, "-n", str(completions[shell])], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_is_offered(completions: dict[str, Path]) -> None:
    """The completions of every shell contain every command."""
    for path in completions.values():
        text = path.read_text()
        assert [name for name in COMMANDS if name not in text] == []
