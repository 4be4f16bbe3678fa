"""Every document that a command prints as JSON fits its schema in docs/schemas: when all is well, empty, and failing.

``support.cli.run`` compares the documents of all other tests with their schemas, too.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from support import schemas
from support.cli import BINFMTD, Cli, Result
from support.daemon import StartDaemon
from support.drop_in import DropIn
from support.instance import Instance
from support.programs import FOREIGN, crashes, exits_with, foreign_program, install, waits
from support.stores import StoreCli, emulators, three
from support.waiting import SLOWNESS

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.names import find
from binfmtd.cli.commands.export import FORMATS

pytest.importorskip("jsonschema", reason="takes jsonschema, which the extra test installs")

pytestmark = pytest.mark.usefixtures("_cli_of_daemon")
NATIVE = find(os.uname().machine).name
NAME = f"qemu-{FOREIGN}"
NOTHING = "architectures = []\n"
ONE = NOTHING + "[handlers.one]\nmagic = '\\x00one'\ninterpreter = '/usr/bin/true'\nflags = 'F'\n"
LATE = "[handlers.late]\nmagic = '\\x00late'\ninterpreter = '/nowhere/late'\n"
OFF = "[handlers.off]\nmagic = '\\x00off'\ninterpreter = '/usr/bin/true'\nenabled = false\n"
REFUSED = "[handlers.elf]\nmagic = '\\x7fELF'\ninterpreter = '/usr/bin/true'\n"
OF_EACH_KIND = ONE + LATE + OFF + REFUSED
SEVERAL = f"[emulators.{FOREIGN}]\ninterpreters = ['/usr/bin/true', '/usr/bin/false']\n"


def checked(name: str, document: Any) -> Any:
    """Assert that a document, or the one that a command printed, fits this schema; return it."""
    found = document.json if isinstance(document, Result) else document
    assert schemas.problems(found, name) == []
    return found


@pytest.fixture
def store(tmp_path: Path) -> StoreCli:
    return StoreCli(tmp_path / "emulators")


def test_nothing(cli: Cli, tmp_path: Path) -> None:
    """Without a handler and an entry there is nothing to report."""
    (tmp_path / "none").mkdir()
    assert checked("plan", cli("plan", "--json", config=NOTHING)) == {"actions": []}
    assert checked("apply", cli("apply", "--json", config=NOTHING)) == {"actions": [], "failed": []}
    assert checked("check", cli("check", "--json", config=NOTHING))["handlers"] == 0
    assert checked("import", cli("import", "--json", str(tmp_path / "none")))["handlers"] == []
    assert checked("doctor", cli("doctor", "--json", config=NOTHING))["findings"] != []


def test_an_error_is_no_document(cli: Cli) -> None:
    """Where a command cannot begin, stdout is empty, and stderr has the reason; `check` has it in its document."""
    for command, status in (("plan", 78), ("apply", 78), ("arch", 78), ("export", 2), ("explain", 2)):
        result = cli(command, "--json", config="nonsense =")
        assert (result.status, result.stdout) == (status, ""), command
        assert result.messages
    result = cli("status", "--json")
    assert (result.status, result.stdout) == (1, "")
    result = cli("check", "--json", config="nonsense =")
    assert (result.status, checked("check", result)["valid"]) == (78, False)


def test_the_status(instance: Instance, start_daemon: StartDaemon, cli: Cli, port: int) -> None:
    """The status has handlers in several states, a pause, foreign entries, and repairs of one and of all entries."""
    pytest.importorskip("prometheus_client", reason="takes prometheus_client, which the extra test installs")
    for name in ("alien", "switched-off"):
        instance.register(f":{name}:E::{name}::/usr/bin/true:".encode())
    instance.write("switched-off", b"0")
    config = OF_EACH_KIND.replace("architectures = []", f"architectures = ['{FOREIGN}']") + SEVERAL
    daemon = start_daemon(f"{config}[metrics]\nlisten = '127.0.0.1:{port}'\n")
    instance.remove("one")
    daemon.wait_status(lambda status: status["repairs"] == 1, "the repair of one")
    instance.remove("status")
    daemon.wait_status(lambda status: any("entries" in row for row in status["history"]), "the repair of all")
    instance.register(b":alien:E::alien::/usr/bin/true:")
    assert cli("pause", "off", "--for", "1h").status == 0
    wanted = {"one": "registered", "late": "waiting", "off": "disabled", "elf": "refused", NAME: "registered"}
    daemon.wait_status(lambda status: {row["name"]: row["state"] for row in status["handlers"]} == wanted, "all states")

    document = checked("status", cli("status", "--json"))
    assert (document["pid"], [pause["name"] for pause in document["paused"]]) == (daemon.pid, ["off"])
    assert any("entry" in row for row in document["history"])
    assert ["/usr/bin/true", "/usr/bin/false"] in [row["candidates"] for row in document["handlers"]]
    narrow = checked("status", cli("status", "one", "--json"))
    assert [row["name"] for row in narrow["handlers"]] == ["one"]
    history = checked("history", cli("status", "--history", "--json"))
    assert history == document["history"]
    assert checked("status", daemon.status())["schema"] == 1
    with urlopen(f"http://127.0.0.1:{port}/status.json", timeout=30 * SLOWNESS) as answer:
        by_http = checked("status", json.load(answer))
    assert by_http.keys() == document.keys() - {"pid"}

    pipe = subprocess.PIPE
    watch = [*BINFMTD, "status", "--watch", "--json", "--state-dir", str(daemon.state_directory)]
    watching = instance.popen(watch, stdout=pipe, stderr=pipe, text=True)
    assert watching.stdout is not None
    assert checked("status", json.loads(watching.stdout.readline()))["pid"] == daemon.pid

    daemon.kill()
    result = cli("status", "--json")
    assert (result.status, checked("status", result)["pid"]) == (1, None)


def test_a_status_in_trouble(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """After a rejected config and an unmount the status has both reasons, and no handlers."""
    daemon = start_daemon(ONE)
    daemon.config.write_text("nonsense =")
    daemon.reload()
    instance.shell(f"umount {instance.mount_point}")
    daemon.wait_status(lambda status: status["mount"] is None and status["config"]["error"], "both troubles")
    document = checked("status", cli("status", "--json"))
    assert (document["state"], document["handlers"]) == ("degraded", [])
    assert document["problem"]
    assert document["config"]["reload_began"] > 0


def test_changes(instance: Instance, cli: Cli, tmp_path: Path) -> None:
    """A plan and a pass have their actions; what cannot be done is a failure, with the kernel's error if it has one."""
    planned = cli("plan", "--json", config=ONE + LATE)
    assert (planned.status, [each["entry"] for each in checked("plan", planned)["actions"]]) == (3, ["one"])
    busy = install(cli.config.with_name("busy"), Path("/usr/bin/true").read_bytes())
    handler = f"[handlers.busy]\nmagic = '\\x00busy'\ninterpreter = '{busy}'\nflags = 'F'\n"
    with busy.open("a"):
        applied = cli("apply", "--json", config=ONE + LATE + handler)
    document = checked("apply", applied)
    assert (applied.status, instance.names()) == (1, ["one"])
    assert {each["entry"]: each["errno"] for each in document["failed"]} == {"late": None, "busy": 26}
    held = str(tmp_path / "held")
    assert checked("apply", cli("apply", "--json", "--own-instance", "--hold", held, config=ONE))["mounted"] == [held]


def test_what_is_undone(instance: Instance, cli: Cli, tmp_path: Path) -> None:
    """`--persistent` names its file, and undoing it names the entries, if there are any."""
    root = tmp_path / "host"
    root.mkdir()
    instance.shell(f"mount -t tmpfs -o mode=755 tmpfs {root} && mkdir -p {root}/etc/binfmt.d {root}/var/lib/binfmtd")
    given = ("--persistent", "--host-root", str(root), "--json", "--arch")
    emulator = install(tmp_path / NAME, exits_with(0))
    config = f"[emulators]\npaths = ['{emulator.parent}/qemu-{{name}}']\n"
    document = checked("apply", cli("apply", *given, FOREIGN, config=config))
    assert document["persistent"].startswith(str(root))
    assert checked("undo", cli("apply", *given, "none", config=config))["removed"] == [NAME]
    again = cli("export", "--remove", "--host-root", str(root), "--json", config=config)
    assert checked("undo", again) == {"removed": [], "persistent": None}


def test_checks_of_the_config(cli: Cli) -> None:
    """A config with a handler that is refused is invalid; one that waits is a warning."""
    result = cli("check", "--json", config=OF_EACH_KIND)
    document = checked("check", result)
    assert (result.status, document["valid"], len(document["errors"])) == (78, False, 1)
    assert document["warnings"]


@pytest.mark.parametrize("kind", FORMATS)
def test_conversions(cli: Cli, kind: str) -> None:
    """Each format has its files and notes; without a handler it has none, and an import of nonsense has notes."""
    result = cli("export", "--format", kind, "--json", config=OF_EACH_KIND)
    document = checked("export", result)
    assert (result.status, document["format"]) == (1, kind)
    assert {note["entry"] for note in document["notes"]} >= {"elf", "off"}
    assert document["files"]
    assert checked("export", cli("export", "--format", kind, "--json", config=NOTHING))["notes"] == []


def test_an_import(instance: Instance, cli: Cli, tmp_path: Path) -> None:
    """An import from the kernel and one of a partly damaged file."""
    instance.register(b":one:E::one::/usr/bin/true:")
    assert checked("import", cli("import", "--kernel", "--json"))["handlers"] == ["one"]
    (tmp_path / "a.conf").write_text(":a:E::a::/usr/bin/true:\nnonsense\n")
    result = cli("import", "--json", str(tmp_path / "a.conf"))
    document = checked("import", result)
    assert (result.status, document["handlers"], len(document["notes"])) == (1, ["a"], 1)


def test_architectures(cli: Cli, tmp_path: Path) -> None:
    """The catalog with and without an emulator, and what its programs do here, natively and without an entry."""
    config = f"[emulators]\npaths = ['{tmp_path}/qemu-{{name}}']\n"
    rows = checked("arch", cli("arch", "--json", config=config))
    assert {row["interpreter"] for row in rows} == {None}
    install(tmp_path / NAME, exits_with(0))
    (row,) = checked("arch", cli("arch", FOREIGN, "--json", config=config))
    assert row["interpreter"] == f"{tmp_path}/{NAME}"
    works, fails = cli("probe", "--json", NATIVE), cli("probe", "--json", FOREIGN)
    assert (works.status, [row["runs"] for row in checked("probe", works)["architectures"]]) == (0, [True])
    assert (fails.status, [row["runs"] for row in checked("probe", fails)["architectures"]]) == (1, [False])
    works, fails = cli("probe", "--deep", "--json", NATIVE), cli("probe", "--deep", "--json", FOREIGN)
    assert (works.status, [row["passes"] for row in checked("probe-deep", works)["platforms"]]) == (0, [True])
    assert (fails.status, [row["checks"] for row in checked("probe-deep", fails)["platforms"]]) == (1, [[]])


def test_explanations(instance: Instance, cli: Cli, tmp_path: Path) -> None:
    """Programs that run natively, as a script and through entries; and some that do not, for each kind of reason."""
    interpreter = install(tmp_path / "interpreter", exits_with(0))
    for name, match in ((f"my-{FOREIGN}", CATALOG[FOREIGN].match), ("shadowed", CATALOG[FOREIGN].match)):
        instance.add(name, match, interpreter)
    instance.register(f":ext:E::ext::{interpreter}:".encode())
    files = {
        "native": install(tmp_path / "native", exits_with(0)),
        "foreign": foreign_program(tmp_path / "foreign", CATALOG[FOREIGN]),
        "script": install(tmp_path / "script", b"#!/bin/sh -e\n"),
        "lost": install(tmp_path / "lost", b"#!/nowhere/sh\n"),
        "extension": install(tmp_path / "x.ext", b"text"),
        "text": install(tmp_path / "text", b"text"),
        "empty": install(tmp_path / "empty", b""),
    }
    (tmp_path / "data").write_text("not executable")
    words = [*map(str, files.values()), str(tmp_path / "data"), str(tmp_path / "missing")]
    result = cli("explain", "--json", *words)
    found = {os.path.basename(each["file"]): each for each in checked("explain", result)}
    assert result.status == 1
    assert {name for name, each in found.items() if each["runs"]} == {"native", "foreign", "script", "x.ext"}
    assert found["foreign"]["steps"][0]["passed_over"] == [{"entry": f"my-{FOREIGN}", "because": "shadowed"}]
    assert found["x.ext"]["steps"][0]["extension"] == "ext"
    assert found["missing"]["steps"] == []
    instance.write("status", b"0")
    (off,) = checked("explain", cli("explain", "--json", str(files["foreign"])))
    assert {each["because"] for each in off["steps"][0]["passed_over"]} == {"switched_off"}
    assert checked("explain", cli("explain", "--json", str(tmp_path / "data") + "/none"))[0]["errno"] == "ENOTDIR"


def test_findings(instance: Instance, cli: Cli) -> None:
    """Failures, warnings, what is in order, and what could not be seen."""
    instance.register(b":gone:E::gone::/nowhere:")
    result = cli("doctor", "--json", config="nonsense =")
    document = checked("doctor", result)
    assert result.status == 1
    assert {"failure", "ok"} <= {each["level"] for each in document["findings"]}
    assert document["failures"] > 0


def test_the_store(store: StoreCli, tmp_path: Path) -> None:
    """Versions that are added, listed, verified, exported and removed; an empty store; a version that is damaged."""
    assert checked("emulators-list", store("list", "--json")) == []
    assert checked("emulators-verify", store("verify", "--json")) == {}
    assert checked("emulators-remove", store("prune", "--dry-run", "--json")) == {"removed": [], "dry_run": True}
    files = three("9.2.2") | {"qemu-s390x": b"no program"}
    source = emulators(tmp_path / "source", files)
    added = checked("emulators-add", store("import", source, "--json"))
    assert (added["added"], [*added["left_out"].values()]) == (True, [["qemu-s390x"]])
    again = store("import", source, "--name", "two", "--json")
    assert checked("emulators-add", again)["name"] == "two"
    exported = checked("emulators-export", store("export", "9.2.2", str(tmp_path / "archive.tar"), "--json"))
    assert exported["file"] == str(tmp_path / "archive.tar")
    (store.path / "two" / "qemu-arm").write_bytes(b"damaged")
    verified = store("verify", "--json")
    assert verified.status == 1
    found = checked("emulators-verify", verified)
    assert (found["9.2.2"], [each["file"] for each in found["two"]]) == ([], ["qemu-arm"])
    (store.path / "two" / "manifest.json").write_text("nonsense")
    whole, damaged = checked("emulators-list", store("list", "--json"))
    assert (whole["damage"], bool(damaged["damage"])) == (None, True)
    assert [each["file"] for each in checked("emulators-verify", store("verify", "--json"))["two"]] == [None]
    assert checked("emulators-remove", store("prune", "--json"))["removed"] == ["9.2.2", "two"]


def test_runs_with_several_emulators(cli: Cli, tmp_path: Path) -> None:
    """A run that passes, one that fails, one that a signal ends, and one that the timeout ends."""
    versions = {"good": exits_with(0), "bad": exits_with(3), "crashing": crashes(), "hanging": waits(0)}
    for version, content in versions.items():
        (tmp_path / "store" / version).mkdir(parents=True)
        install(tmp_path / "store" / version / NAME, content)
    program = foreign_program(tmp_path / "program", CATALOG[FOREIGN])
    cli.config.write_text(f"architectures = ['{FOREIGN}']\n")
    given = ["--config", str(cli.config), "--store", str(tmp_path / "store"), "--timeout", "1500ms"]
    result = cli("sandbox", *given, "--emulators", ",".join(versions), "--json", "--", str(program))
    rows = checked("sandbox-emulators", result)
    assert [each["status"] for each in rows] == [0, 3, 139, None]
    assert [each["signal"] for each in rows] == [None, None, "SIGSEGV", None]


def test_the_drop_in(instance: Instance, tmp_path: Path) -> None:
    """`binfmt` prints null for the entries if there are none, else their names."""
    binfmt = DropIn(instance, tmp_path)
    assert checked("binfmt", binfmt(""))["emulators"] is None
    instance.register(b":jar:E::jar::/usr/bin/true:")
    assert checked("binfmt", binfmt(""))["emulators"] == ["jar"]
