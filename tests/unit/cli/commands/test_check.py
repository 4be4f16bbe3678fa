"""``binfmtd check`` on configs that cannot be used."""

import os
from pathlib import Path

import pytest
from support.cli import BINFMTD, Result, run


def check(config: Path, *options: str) -> Result:
    return run([*BINFMTD, "check", "--config", str(config), *options])


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("architecture = []", "architecture", "unknown key: did you mean architectures?"),
        ("[handlers.a]\nmagic = \"\\xff\"\ninterpreter = '/a'", "not valid TOML", "in single quotes"),
        ("[handlers.a]\nextension = 'x'", "handlers.a", "give the absolute path"),
    ],
)
def test_a_config_error(tmp_path: Path, text: str, key: str, remedy: str) -> None:
    """A config error is status 78, nothing on stdout, and one line that names the file, the key and the remedy."""
    config = tmp_path / "binfmtd.toml"
    config.write_text(text)
    result = check(config)
    assert (result.status, result.stdout) == (78, "")
    assert result.message.startswith(f"{config}: {key}: ")
    assert remedy in result.message


def test_all_mistakes_of_all_files(tmp_path: Path) -> None:
    """Each mistake is one line, also those of other files; other commands print the first, and how many more it has."""
    config, other = tmp_path / "binfmtd.toml", tmp_path / "conf.d" / "a.toml"
    other.parent.mkdir()
    config.write_text("keep = [1]\nsetle = 1")
    other.write_text("resync = '1'")
    lines = check(config).stderr.splitlines()
    first = f"binfmtd: {config}: setle: unknown key: did you mean settle or sealed? (and 1 more mistake)"
    assert (lines[0], run([*BINFMTD, "plan", "--config", str(config)]).stderr) == (first, f"{first}\n")
    places = [f"{config}: keep[0]: 1 must be", f"{other}: resync: '1' is not"]
    assert [line.startswith(f"binfmtd: {place}") for line, place in zip(lines[1:], places, strict=True)] == [True, True]


def test_a_file_without_its_directory(tmp_path: Path) -> None:
    """A file that the daemon could not write is a warning."""
    config = tmp_path / "binfmtd.toml"
    config.write_text(f"architectures = []\n[labels]\nfile = '/nowhere/x'\n[metrics]\ntextfile = '{tmp_path}/x.prom'")
    result = check(config)
    expected = "labels.file: the directory of /nowhere/x does not exist: make it, or correct the path"
    assert (result.status, result.message) == (0, expected)


def test_plugins_of_pydantic(tmp_path: Path) -> None:
    """No plugin of pydantic that another package installs is imported."""
    package = tmp_path / "plugin-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[pydantic]\nany = a_plugin:plugin\n")
    (tmp_path / "a_plugin.py").write_text("print('imported')\n")
    (tmp_path / "binfmtd.toml").write_text("architectures = []\n")
    command = [*BINFMTD, "check", "--config", str(tmp_path / "binfmtd.toml")]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = run(command, env=os.environ | {"PYTHONPATH": path})
    assert (result.status, result.stdout, result.stderr) == (0, "valid: 0 handlers\n", "")


def test_a_config_error_as_json(tmp_path: Path) -> None:
    """With --json the error is in the document on stdout, and stderr is empty."""
    config = tmp_path / "binfmtd.toml"
    config.write_text("x = 1")
    result = check(config, "--json")
    assert (result.status, result.stderr) == (78, "")
    document = result.json
    assert document["valid"] is False
    assert document["warnings"] == []
    assert [error.startswith(f"{config}: x: unknown key") for error in document["errors"]] == [True]


def test_a_name_that_could_steer_the_terminal(tmp_path: Path) -> None:
    """Control characters from a config are escaped in messages."""
    config = tmp_path / "binfmtd.toml"
    config.write_text('"\\u001b[31mred" = 1')
    result = check(config)
    assert result.status == 78
    assert "\x1b" not in result.stderr
    assert "\\x1b[31mred" in result.message
