"""``binfmtd sandbox --emulators``: the config of a version."""

import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from binfmtd.catalog.architectures import CATALOG
from binfmtd.cli.emulator_versions import Version, overlay
from binfmtd.config.load import make, read
from binfmtd.files.trust import Trust


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\n{}")))
def test_overlay(text: str) -> None:
    """The additional file gives each architecture its path, whatever characters that contains."""
    tables = tomllib.loads(overlay(f"/{text}/{{name}}").decode())
    assert tables.pop("include") == []
    assert tables == {"emulators": {name: {"interpreter": f"/{text}/{name}"} for name in CATALOG}}


def test_flags() -> None:
    """Only the architectures that need other flags have them in the file."""
    config = make((("a", overlay("/{name}", {"arm": "OF"})),), trust=Trust.of_this_process())
    assert {spec.flags.letters for spec in config.specs if spec.architecture != "arm"} == {"POF"}
    assert [spec.flags.letters for spec in config.specs if spec.architecture == "arm"] == ["OF"]


def test_write_config(tmp_path: Path) -> None:
    """The config that is written has the contents in their order, whatever the names of their files were."""
    contents = tuple((name, f"# {name}\n".encode()) for name in ("/etc/z.toml", "/etc/conf.d/a.toml", "--emulators x"))
    main = Version("x", contents).write_config(str(tmp_path))
    assert main is not None
    _, *others = read(main, trust=Trust.of_this_process())
    assert [data for _, data in others] == [data for _, data in contents]


def test_system() -> None:
    """The version of the distribution takes the place of an interpreter that the config names."""
    chosen = b"architectures = ['arm64']\n[emulators.arm64]\ninterpreter = '/opt/box'\n"
    config = make((("a", chosen), ("b", overlay(None))), trust=Trust.of_this_process())
    assert [spec.interpreters for spec in config.specs] == [("/usr/bin/qemu-aarch64-static", "/usr/bin/qemu-aarch64")]


def test_included_rules_do_not_replace_the_version(tmp_path: Path) -> None:
    """A rule of binfmt.d that the config includes, and that has the entry's name, does not take its place."""
    (rules := tmp_path / "rules").mkdir()
    (rules / "a.conf").write_text(":qemu-aarch64:M::\\x7fELF:\\xff\\xff\\xff\\xff:/opt/box:\n")
    chosen = f"architectures = ['arm64']\ninclude = ['{rules}']\n".encode()
    trust = Trust.of_this_process()
    assert [spec.interpreters for spec in make((("a", chosen),), trust=trust).specs] == [("/opt/box",)]
    config = make((("a", chosen), ("b", overlay("/store/{name}"))), trust=trust)
    assert [spec.interpreters for spec in config.specs] == [("/store/aarch64",)]
