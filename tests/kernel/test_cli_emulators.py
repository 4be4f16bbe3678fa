"""``binfmtd emulators`` beside a real instance: entries whose interpreter is a file of a version keep it."""

from pathlib import Path

from support.cli import Cli
from support.instance import Instance
from support.stores import emulators, three

CONFIG = "architectures = []\n[handlers.declared]\nmagic = '\\x00one'\ninterpreter = '{path}'\n"


def test_versions_in_use(cli: Cli, instance: Instance, tmp_path: Path) -> None:
    """A version that an entry uses is listed with it, and kept by `remove` and `prune` until the entry is gone."""
    store = f"--store={tmp_path}/store"
    for name in ("applied", "foreign", "unused"):
        cli("emulators", "import", emulators(tmp_path / name, three("9.2.2")), "--name", name, store)
    config = CONFIG.format(path=f"{tmp_path}/store/applied/qemu-arm")
    assert cli("apply", config=config).status == 0
    instance.register(f":theirs:M::\\x00two::{tmp_path}/store/foreign/qemu-arm:F".encode())
    without = "architectures = []\n"
    listed = {
        version["name"]: (version["handlers"], version["entries"])
        for version in cli("emulators", "list", "--json", store, config=without).json
    }
    assert listed == {"applied": ([], ["declared"]), "foreign": ([], ["theirs"]), "unused": ([], [])}
    result = cli("emulators", "remove", "applied", store, config=config)
    assert result.status == 1
    assert result.message.startswith("version applied is in use by the handler declared and the entry declared: ")
    assert "in use by the entry theirs" in cli("emulators", "remove", "foreign", store, config=without).message
    assert cli("emulators", "prune", store, config=without).stdout == "removed unused\n"
    instance.remove("theirs")
    assert cli("emulators", "prune", store, config=without).stdout == "removed foreign\n"
    row = cli("emulators", "list", store, config=config).rows[1]
    assert [row[0], *row[5:9]] == ["applied", "1", "handler,", "1", "entry"]
