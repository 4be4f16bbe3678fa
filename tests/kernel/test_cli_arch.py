"""``binfmtd arch``: the catalog, as this host sees it."""

import json
import re
import sys
from pathlib import Path

import pytest
from support.cli import Cli, fake_emulators
from support.instance import Instance
from support.programs import foreign_program, install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.host.facts import boot_id

# Prints the names of the programs that start: these exit with 42, or die by SIGSYS under a seccomp filter.
START_EACH = """
import os, sys
for name in sys.argv[2:]:
    try:
        status = os.waitpid(os.posix_spawn(f"{sys.argv[1]}/{name}", [name], {}), 0)[1]
    except OSError:
        continue
    if os.waitstatus_to_exitcode(status) in (42, -31):
        print(name)
"""


@pytest.fixture
def cli(module_instance: Instance, tmp_path: Path) -> Cli:
    return Cli(module_instance, tmp_path)


def test_every_architecture_has_a_row(cli: Cli, tmp_path: Path) -> None:
    """All architectures are listed with emulator and names, whichever of them the config declares."""
    config = "architectures = []\n" + fake_emulators(tmp_path / "bin", ["arm"])
    result = cli("arch", config=config)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.startswith("NAME")
    assert [row[0] for row in result.rows[1:]] == list(CATALOG)
    assert ["arm", f"{tmp_path}/bin/qemu-arm", "-", "armhf"] in [row[:4] for row in result.rows]
    assert ["s390x", "-", "-", "linux/s390x"] in [row[:4] for row in result.rows]


def test_versions(cli: Cli, tmp_path: Path) -> None:
    """QEMU's version is found in the emulator's file, which is not run."""
    config = fake_emulators(tmp_path / "bin", [])
    path = install(tmp_path / "bin" / "qemu-arm", b"\x7fELF\0qemu-arm version 9.2.2\0")
    assert [row[:3] for row in cli("arch", "arm", config=config).rows[1:]] == [["arm", str(path), "9.2.2"]]
    (document,) = cli("arch", "arm", "--json", config=config).json
    assert document["version"] == "9.2.2"


def test_only_some(cli: Cli, tmp_path: Path) -> None:
    """Given architectures are listed in the given order, by any of their names."""
    config = fake_emulators(tmp_path / "bin", ["aarch64"])
    result = cli("arch", "linux/s390x", "ARM64", config=config)
    assert result.status == 0
    assert [row[0] for row in result.rows[1:]] == ["s390x", "aarch64"]
    (document,) = cli("arch", "arm64", "--json", config=config).json
    assert document.keys() == {"name", "aliases", "interpreter", "version", "settings", "native", "magic", "mask"}
    assert document["name"] == "aarch64"
    assert {"arm64", "linux/arm64"} <= set(document["aliases"])
    assert document["interpreter"] == f"{tmp_path}/bin/qemu-aarch64"
    assert document["magic"] == "7f454c460201010000000000000000000200b700"
    assert document["mask"] == "ffffffffffffff00fffffffffffffffffeffffff"


def test_natively_is_what_runs(cli: Cli, tmp_path: Path) -> None:
    """An architecture is native if and only if its programs start without any registered handler."""
    for row in CATALOG.values():
        foreign_program(tmp_path / row.name, row)
    runs = cli.instance.run([sys.executable, "-c", START_EACH, str(tmp_path), *CATALOG]).stdout.split()
    assert runs
    listed = cli("arch", "--json", config="").json
    assert [row["name"] for row in listed] == list(CATALOG)
    assert [row["name"] for row in listed if row["native"]] == runs


def test_natively_despite_handlers(instance: Instance, tmp_path: Path) -> None:
    """Registered emulators do not change which architectures are native, not even the host's other width."""
    cli = Cli(instance, tmp_path)
    before = {row["name"]: row["native"] for row in cli("arch", "--json", config="").json}
    config = fake_emulators(tmp_path / "bin", CATALOG) + "[emulators.i386]\nforce = true\n"
    assert cli("apply", config=config).status == 0
    (tmp_path / "state" / "native.json").unlink()  # so that it is tested again
    assert {row["name"]: row["native"] for row in cli("arch", "--json", config="").json} == before


def test_recorded_for_a_daemon_that_may_not_try(cli: Cli, tmp_path: Path) -> None:
    """`--record` prints nothing, reads no config, and saves which architectures are native for this boot's daemon."""
    natively = {row["name"] for row in cli("arch", "--json", config="").json if row["native"]}
    kept = tmp_path / "state" / "native.json"
    assert not kept.exists()
    recorded = cli("arch", "--record", config="no TOML")
    assert (recorded.status, recorded.stdout, recorded.stderr) == (0, "", "")
    answer = json.loads(kept.read_text())
    assert (answer["boot_id"], set(answer["native"])) == (boot_id(), natively)
    again = cli("arch", "--record", config="no TOML")
    assert (again.status, again.stdout, again.stderr) == (0, "", "")


def test_a_result_that_cannot_be_stored(cli: Cli, tmp_path: Path) -> None:
    """`--record` exits with 1 and names the file and the remedy; other commands work without the file."""
    (tmp_path / "state").mkdir(mode=0o755, exist_ok=True)
    (tmp_path / "state" / "native.json").mkdir()
    recorded = cli("arch", "--record", config="")
    assert recorded.status == 1
    assert re.search(r"state/native\.json: .+: .+", recorded.message), recorded.message
    assert cli("arch", config="").status == 0
