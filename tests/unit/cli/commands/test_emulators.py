"""``binfmtd emulators`` with versions that are imported from directories, so without skopeo and without a network."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import BINFMTD, NOBODY, run, unprivileged_python
from support.stores import ENVIRONMENT, StoreCli, emulators, three
from support.tiny_emulators import tiny_emulator

from binfmtd.cli.commands.emulators import SUBCOMMANDS
from binfmtd.cli.store.directory import Store


@pytest.fixture
def store(tmp_path: Path) -> StoreCli:
    return StoreCli(tmp_path)


def test_import(store: StoreCli, tmp_path: Path) -> None:
    """A version has its files, executable by all, and a manifest; its name is what all files report."""
    source = emulators(tmp_path / "source", three("9.2.2") | {"qemu-arm-static": b"", "README": b"text"})
    result = store("import", source)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.startswith("added 9.2.2: 3 architectures, ")
    version = store.path / "9.2.2"
    assert sorted(os.listdir(version)) == ["manifest.json", "qemu-aarch64", "qemu-arm", "qemu-riscv64"]
    assert stat.S_IMODE(version.stat().st_mode) == 0o755
    assert all(stat.S_IMODE((version / f"qemu-{name}").stat().st_mode) == 0o755 for name in ("aarch64", "arm"))
    manifest = store.manifest("9.2.2")
    assert (manifest["source"], manifest["digest"], manifest["architectures"]) == (source, None, None)
    assert manifest["created"].endswith("Z")
    assert {facts["version"] for facts in manifest["files"].values()} == {"9.2.2"}
    assert (version / "qemu-arm").read_bytes() == (tmp_path / "source" / "qemu-arm").read_bytes()
    assert store.hidden() == []


def test_names(store: StoreCli, tmp_path: Path) -> None:
    """Without one version that all files report, or with a name that no version can have, --name is required."""
    mixed = three("9.2.2") | {"qemu-arm": tiny_emulator("10.0.3"), "qemu-sh4": tiny_emulator(None)}
    source = emulators(tmp_path / "mixed", mixed)
    result = store("import", source)
    assert (result.status, result.stdout) == (2, "")
    assert result.message == (
        f"{source}: its emulators report the versions 10.0.3, 9.2.2, and sh4 none: give it a name with --name"
    )
    silent = emulators(tmp_path / "silent", {"qemu-sh4": tiny_emulator(None)})
    assert "report no version: give this one a name with --name" in store("import", silent).message
    assert "means the distribution's emulators" in store("import", source, "--name", "system").message
    assert "is a directory of the file system" in store("import", source, "--name", "lost+found").message
    assert "cannot be the name of a version" in store("import", source, "--name", "../x").message
    assert store.versions == []
    store.checked("import", source, "--name", "mixed")
    assert store.manifest("mixed")["files"]["qemu-sh4"]["version"] is None


def test_the_same_again(store: StoreCli, tmp_path: Path) -> None:
    """A version that is there is refused with the remedy, unless the files are equal; it stays as it is."""
    store.checked("import", emulators(tmp_path / "one", three("9.2.2")))
    before = store.manifest("9.2.2")
    result = store("import", emulators(tmp_path / "equal", three("9.2.2")), "--json")
    assert (result.status, result.json["added"], result.json["name"]) == (0, False, "9.2.2")
    other = emulators(tmp_path / "other", three("9.2.2", b"other"))
    result = store("import", other)
    assert result.status == 1
    assert result.message == (
        f"the store {store.path} has a version 9.2.2 with other files, from {tmp_path}/one: choose another name with "
        f"--name, or run `binfmtd emulators remove 9.2.2 --store {store.path}` first"
    )
    assert store.manifest("9.2.2") == before
    assert store.hidden() == []
    store.checked("import", other, "--name", "other")
    (store.path / "other" / "qemu-arm").write_bytes(b"damaged")
    result = store("import", other, "--name", "other")
    assert result.status == 1
    assert result.message.startswith(f"the store {store.path} has version other, but damaged (qemu-arm has 7 bytes ")
    assert result.message.endswith(f"run `binfmtd emulators remove other --store {store.path}`, and add it again")
    assert store.versions == ["9.2.2", "other"]


def test_architectures(store: StoreCli, tmp_path: Path) -> None:
    """--arch takes some, by any name; one that the source does not have is an error."""
    source = emulators(tmp_path / "source", three("9.2.2"))
    store.checked("import", "--arch", "arm64,riscv64", source)
    assert store.checksums("9.2.2").keys() == {"qemu-aarch64", "qemu-riscv64"}
    assert store.manifest("9.2.2")["architectures"] == ["aarch64", "riscv64"]
    store.checked("import", source, "--arch=all", "--name", "all")
    assert store.manifest("all")["architectures"] is None
    result = store("import", source, "--name", "x", "--arch", "arm,s390x,ppc64le")
    assert result.message == f"{source}: it has no emulator of ppc64le, s390x: leave that out of --arch"
    assert "unknown architecture 'amr64'" in store("import", source, "--arch", "amr64").message


def test_unfit_files(store: StoreCli, tmp_path: Path) -> None:
    """A file that is no static program for this host is left out with a warning; a source with no other is an error."""
    files = three("9.2.2") | {"qemu-mips": b"#!/bin/sh\n", "qemu-sh4": b"text", "qemu-x": b"text"}
    result = store("import", emulators(tmp_path / "source", files))
    assert (result.status, result.message) == (0, "left out qemu-mips, qemu-sh4: not an ELF program")
    (tmp_path / "source" / "qemu-mips").unlink()
    (tmp_path / "source" / "qemu-mips").symlink_to(tmp_path / "source" / "qemu-arm")  # by its path on this host
    (tmp_path / "source" / "qemu-sh4").unlink()
    (tmp_path / "source" / "qemu-sh4").symlink_to("qemu-arm")
    (tmp_path / "source" / "qemu-arm-static").symlink_to("/nowhere")  # arm has another file
    result = store("import", str(tmp_path / "source"), "--name", "links")
    assert result.message == "left out qemu-mips: a link that leads to no emulator of this source"
    assert store.checksums("links").keys() == {"qemu-aarch64", "qemu-arm", "qemu-riscv64", "qemu-sh4"}
    unfit = emulators(tmp_path / "unfit", {"qemu-mips": b"text", "other": b"text"})
    result = store("import", unfit, "--name", "x")
    assert result.status == 1
    assert "among its 2 files are only these emulators: qemu-mips: not an ELF program: choose another" in result.message
    assert "none of 0 files is one" in store("import", emulators(tmp_path / "empty", {})).message


def test_verify(store: StoreCli, tmp_path: Path) -> None:
    """Each difference from the manifest is named, and the status is then 1."""
    for name in ("good", "bad"):
        store.checked("import", emulators(tmp_path / name, three("9.2.2")), "--name", name)
    result = store("verify")
    assert (result.status, result.stdout) == (0, "bad: as it was added\ngood: as it was added\n")
    bad = store.path / "bad"
    content = (bad / "qemu-arm").read_bytes()
    (bad / "qemu-arm").write_bytes(content[:-1] + b"x")
    (bad / "qemu-riscv64").unlink()
    (bad / "extra").touch()
    result = store("verify")
    assert (result.status, result.stdout) == (1, "good: as it was added\n")
    assert [message.partition(" instead")[0].rsplit(" ", 1)[0] for message in result.messages] == [
        "bad: qemu-arm has the sha256",
        "bad: qemu-riscv64 is",
        "bad: extra is not in the",
    ]
    (bad / "qemu-arm").write_bytes(content + b"x")
    (bad / "qemu-aarch64").chmod(0o644)
    (bad / "qemu-riscv64").mkdir()
    problems = {each["file"]: each["problem"] for each in store("verify", "bad", "--json").json["bad"]}
    assert problems == {
        "qemu-arm": f"has {len(content) + 1} bytes instead of {len(content)}",
        "qemu-aarch64": "is not executable",
        "qemu-riscv64": "is not a regular file",
        "extra": "is not in the manifest",
    }
    (bad / "qemu-aarch64").chmod(0o777)
    assert "chmod go-w" in str(store("verify", "bad", "--json").json)
    assert store("verify", "good").status == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_manifest(store: StoreCli, tmp_path: Path, content: str) -> None:
    """A version without a readable manifest is listed with the damage, and can be removed."""
    store.checked("import", emulators(tmp_path / "source", three("9.2.2")))
    (store.path / "9.2.2" / "manifest.json").write_text(content)
    (version,) = store.checked("list", "--json").json
    assert version["damage"].startswith(f"{store.path}/9.2.2/manifest.json: ")
    assert "damaged: " in store.checked("list").stdout
    assert store("verify").status == 1
    assert store("export", "9.2.2", str(tmp_path / "x.tar")).status == 1
    message = store("import", str(tmp_path / "source")).message
    assert message.endswith(f"run `binfmtd emulators remove 9.2.2 --store {store.path}`, and add the version again")
    store.checked("remove", "9.2.2")
    assert store.versions == []


def test_list(store: StoreCli, tmp_path: Path) -> None:
    """`list` has each version, also for a machine; an empty store is no error."""
    assert store.checked("list").stdout == f"the store {store.path} is empty\n"
    store.checked("import", source := emulators(tmp_path / "source", three("9.2.2")))
    (store.path / "lost+found").mkdir()
    (store.path / "stable").symlink_to("9.2.2")
    assert store.versions == ["9.2.2", "stable"]
    store.checked("remove", "stable")
    (document,) = store.checked("list", "--json").json
    assert document == {
        "name": "9.2.2",
        "source": source,
        "digest": None,
        "platform_digest": None,
        "created": store.manifest("9.2.2")["created"],
        "bytes": sum(os.path.getsize(store.path / "9.2.2" / name) for name in three("9.2.2")),
        "architectures": dict.fromkeys(("aarch64", "arm", "riscv64"), "9.2.2"),
        "settings": {},
        "damage": None,
        "handlers": [],
        "entries": [],
    }
    heading, row = store.checked("list").rows
    assert heading[:3] == ["VERSION", "ARCHITECTURES", "SIZE"]
    assert row[:2] == ["9.2.2", "3"]


def declare(store: StoreCli, path: str) -> None:
    store.config.write_text(f"architectures = []\n[handlers.one]\nmagic = 'one'\ninterpreter = '{path}'\n")


def test_in_use(store: StoreCli, tmp_path: Path) -> None:
    """A version that the config names is not removed, also if it is named by a link; --force removes it."""
    for name in ("used", "linked", "unused"):
        store.checked("import", emulators(tmp_path / name, three("9.2.2")), "--name", name)
    declare(store, f"{store.path}/used/qemu-arm")
    assert [version["handlers"] for version in store.checked("list", "--json").json] == [[], [], ["one"]]
    result = store("remove", "unused", "used")
    assert result.status == 1
    assert result.message.startswith("version used is in use by the handler one: name another version in the config")
    assert store.versions == ["linked", "unused", "used"]
    (tmp_path / "link").symlink_to(store.path / "linked")
    declare(store, f"{tmp_path}/link/qemu-arm")
    assert "is in use by the handler one" in store("remove", "linked").message
    assert store.checked("prune", "--dry-run").stdout == "would remove unused\nwould remove used\n"
    assert store.versions == ["linked", "unused", "used"]
    assert store.checked("prune", "--json").json == {"removed": ["unused", "used"], "dry_run": False}
    assert store.versions == ["linked"]
    assert store.checked("prune").stdout == "nothing to do\n"
    store.checked("remove", "--force", "linked")
    assert store.versions == []


def test_prune_of_another_directory(store: StoreCli, tmp_path: Path) -> None:
    """A directory with other files than a version stays: --store may name /var/lib by mistake."""
    for name in ("damaged", "unused"):
        store.checked("import", emulators(tmp_path / name, three("9.2.2")), "--name", name)
    (store.path / "damaged" / "manifest.json").unlink()
    (store.path / "documents" / "letters").mkdir(parents=True)
    (store.path / "empty").mkdir()
    (store.path / "notes").write_text("text")
    message = f"left alone in {store.path}, since it is no version of emulators: documents, empty, notes"
    for arguments in (["--dry-run"], []):
        result = store("prune", "--json", *arguments)
        assert (result.status, result.json["removed"]) == (0, ["damaged", "unused"])
        assert result.message == message
    (store.path / "documents" / "manifest.json").write_text("{}")  # as many other programs have
    others = sorted(path.name for path in store.path.iterdir() if path.name[0] != ".")
    assert others == ["documents", "empty", "notes"]
    for name in others:
        result = store("remove", "--force", name)
        assert (result.status, result.message) == (2, f"no version {name!r} is in the store {store.path}: it is empty")
    assert store("list").message == message
    assert (store.path / "documents" / "letters").is_dir()
    assert (store.path / "notes").exists()


def test_versions_of_the_config(store: StoreCli, tmp_path: Path) -> None:
    """A version that [emulators] names is in use by each architecture's handler, also as one of several."""
    for name in ("9.2.2", "8.1.5", "7.2.0"):
        store.checked("import", emulators(tmp_path / name, three(name)))
    store.config.write_text(
        f"architectures = ['arm', 's390x']\n[emulators]\nstore = '{store.path}'\nversion = '9.2.2'\n"
        "[emulators.s390x]\ninterpreters = ['system', 'store:8.1.5']\n"
    )
    used = {version["name"]: version["handlers"] for version in store.checked("list", "--json").json}
    assert used == {"9.2.2": ["qemu-arm"], "8.1.5": ["qemu-s390x"], "7.2.0": []}
    assert store.checked("prune").stdout == "removed 7.2.0\n"
    assert "in use by the handler qemu-s390x" in store("remove", "8.1.5").message


def test_an_invalid_config(store: StoreCli, tmp_path: Path) -> None:
    """While the config cannot be read, nothing is removed but with --force; `list` warns."""
    store.checked("import", emulators(tmp_path / "source", three("9.2.2")))
    store.config.write_text("[")
    for arguments in (["prune"], ["remove", "9.2.2"]):
        result = store(*arguments)
        assert result.status == 78
        assert result.message.startswith("nothing was removed, since the config could name it, and cannot be read: ")
    result = store("list")
    assert result.status == 0
    assert result.message.startswith("which handlers use them is not known: ")
    store.checked("remove", "9.2.2", "--force")


@pytest.mark.parametrize("arguments", [["remove", "x"], ["verify", "x"], ["export", "../store/9.2.2", "x.tar"]])
def test_no_such_version(store: StoreCli, tmp_path: Path, arguments: list[str]) -> None:
    """The error lists the versions that there are; no name leads out of the store."""
    assert store(*arguments).message.endswith(f"is in the store {store.path}: it is empty")
    store.checked("import", emulators(tmp_path / "source", three("9.2.2")))
    result = store(*arguments)
    assert (result.status, result.stdout) == (2, "")
    assert result.message.endswith(f"is in the store {store.path}: it has 9.2.2")


def test_a_store_that_others_can_write(store: StoreCli, tmp_path: Path) -> None:
    """A store that another user could change is refused, with the command that corrects it, and left as it is."""
    source = emulators(tmp_path / "source", three("9.2.2"))
    store.checked("import", source, "--name", "one")
    store.path.chmod(0o777)
    for arguments in (["import", source], ["remove", "one"]):
        result = store(*arguments)
        assert result.status == 1
        assert result.message.startswith(f"the store {store.path}: '{store.path}' (owner ")
        assert result.message.endswith(f"run `chmod go-w '{store.path}'`")
    assert store.versions == ["one"]
    store.path.chmod(0o755)
    tmp_path.chmod(0o777)
    assert f"chmod go-w '{tmp_path}'" in store("import", source).message


@pytest.mark.skipif(os.geteuid() != 0, reason="this takes root: another user")
def test_as_an_ordinary_user(store: StoreCli, tmp_path: Path) -> None:
    """A user who may not write to the store gets one error, and may read it."""
    source = emulators(tmp_path / "source", three("9.2.2"))
    store.checked("import", source)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == 0 and not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o011)
    python = [*unprivileged_python(), "-m", "binfmtd", "emulators"]
    result = run([*python, "import", source, "--name", "x", "--store", str(store.path)], env=ENVIRONMENT, cwd="/")
    assert result.status == 1
    assert result.message.startswith(f"{store.path}: Permission denied: run this as root")
    assert run([*python, "verify", "--store", str(store.path)], env=ENVIRONMENT, cwd="/").status == 0
    own = tmp_path / "own"
    own.mkdir()
    shutil.chown(own, int(NOBODY), int(NOBODY))
    assert run([*python, "import", source, "--store", f"{own}/store"], env=ENVIRONMENT, cwd="/").status == 0


def test_leftovers(store: StoreCli, tmp_path: Path) -> None:
    """The next command that changes the store removes what killed ones have left, and not what is in use."""
    source = emulators(tmp_path / "source", three("9.2.2"))
    store.checked("import", source)
    for name in (".new-0123456789abcdef", ".old-0123456789abcdef"):
        (store.path / name / "version").mkdir(parents=True)
    (store.path / ".other").mkdir()
    (store.path / ".lock").touch(0o600)
    with Store(str(store.path)).preparing() as prepared:  # removes them already
        assert store.hidden() == sorted([".other", os.path.basename(prepared.place)])
        (store.path / ".old-0123456789abcdef").mkdir()
        store.checked("remove", "9.2.2")
        assert store.hidden() == sorted([".other", os.path.basename(prepared.place)])
        assert store.versions == []
    assert store.hidden() == [".other"]
    (store.path / ".new-0123456789abcdef" / "version").mkdir(parents=True)
    assert store.checked("prune").stdout == "nothing to do\n"
    assert store.hidden() == [".other"], "also if it removes no version"


def test_at_the_same_time(store: StoreCli, tmp_path: Path) -> None:
    """Of several commands that add one version at the same time one adds it, and the others find it there."""
    source = emulators(tmp_path / "source", three("9.2.2"))
    command = store.command("import", source, "--json")
    running = [subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    added = [json.loads(process.communicate(timeout=60)[0])["added"] for process in running]
    assert sorted(added) == [False, False, False, True]
    assert [process.returncode for process in running] == [0] * 4
    assert (store("verify").status, store.hidden()) == (0, [])


def test_a_command_that_ends(store: StoreCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command may end, and remove its own directory, just after another one has listed that directory."""
    list_directory = os.listdir

    def and_the_other_ends(path: str) -> list[str]:
        names = list_directory(path)
        for name in names:
            if name.startswith(".new-"):
                shutil.rmtree(os.path.join(path, name))
        return names

    (store.path / ".new-0123456789abcdef").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", and_the_other_ends)
        with Store(str(store.path)).preparing():
            pass
    assert store.hidden() == []


def test_removed_at_the_same_time(store: StoreCli, tmp_path: Path) -> None:
    """Of two commands that remove a version one does; `list` and `verify` leave out what is removed meanwhile."""
    for name in ("one", "two"):
        store.checked("import", emulators(tmp_path / name, three("9.2.2")), "--name", name)
    directory = Store(str(store.path))
    assert [directory.remove("one"), directory.remove("one")] == [True, False]

    class RemovedMeanwhile(Store):
        def names(self) -> list[str]:
            return ["one", *super().names()]

    assert [name for name, _ in RemovedMeanwhile(str(store.path)).readable()] == ["two"]
    script = """
import sys
from binfmtd.cli.store.directory import Store
names, calls = Store.names, []
Store.names = lambda store: (["one"] if not calls.append(1) and len(calls) == 1 else []) + names(store)
from binfmtd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    for subcommand in ("list", "prune"):
        command = [sys.executable, "-c", script, *store.command(subcommand, "--json")[len(BINFMTD) :]]
        result = run(command, env=ENVIRONMENT)
        assert (result.status, result.stderr) == (0, ""), subcommand
        named = result.json["removed"] if subcommand == "prune" else [version["name"] for version in result.json]
        assert named == ["two"]


def test_umask(store: StoreCli, tmp_path: Path) -> None:
    """Whatever the umask is, all users may execute the emulators, and only the owner may change them."""
    source = emulators(tmp_path / "source", three("9.2.2"))
    for umask in ("077", "000"):
        command = store.command("import", source, "--name", f"u{umask}")
        result = run(["sh", "-c", f'umask {umask}; exec "$@"', "sh", *command], env=ENVIRONMENT)
        assert result.status == 0, result.stderr
        version = store.path / f"u{umask}"
        assert [stat.S_IMODE(path.stat().st_mode) for path in (store.path, version, version / "qemu-arm")] == [
            0o755
        ] * 3
        assert stat.S_IMODE((version / "manifest.json").stat().st_mode) == 0o644
    assert store("verify").status == 0


def test_missing_sources(store: StoreCli, tmp_path: Path) -> None:
    """A source that does not exist, and a store that is a file, are one error each."""
    result = store("import", str(tmp_path / "missing"))
    assert (result.status, result.stdout) == (1, "")
    assert result.message.startswith(f"{tmp_path}/missing: No such file or directory: ")
    store.path.write_text("")
    result = store("import", emulators(tmp_path / "source", three("9.2.2")))
    assert (result.status, result.stdout) == (1, "")
    assert result.message.startswith(f"{store.path}: ")


def test_the_store_of_the_environment(store: StoreCli, tmp_path: Path) -> None:
    """The config and $BINFMTD_STORE name the store; the variable and --store have precedence, in this order."""
    store.checked("import", emulators(tmp_path / "source", three("9.2.2")))
    command = [word for word in store.command("verify") if not word.startswith("--store")]
    assert run(command, env=ENVIRONMENT | {"BINFMTD_STORE": str(store.path)}).stdout == "9.2.2: as it was added\n"
    store.config.write_text(f"architectures = []\n[emulators]\nstore = '{store.path}'\n")
    assert run(command, env=ENVIRONMENT).stdout == "9.2.2: as it was added\n"
    assert run(command, env=ENVIRONMENT | {"BINFMTD_STORE": "/nowhere"}).stdout == ""
    assert store("verify", env=ENVIRONMENT | {"BINFMTD_STORE": "/nowhere"}).stdout == "9.2.2: as it was added\n"


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_help(store: StoreCli, subcommand: str) -> None:
    """Each subcommand explains itself, with --store and --json."""
    result = store(subcommand, "--help")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: binfmtd emulators {subcommand} ")
    assert {"--store", "--json"} <= set(result.stdout.replace("[", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: SUBCOMMAND: see `binfmtd emulators --help`"),
        (["pull"], "the following arguments are required: IMAGE: see `binfmtd emulators pull --help`"),
        (["list", "--jsn"], "unrecognized arguments: --jsn: see `binfmtd emulators --help`"),
        *(
            (["pull", word], f"{word!r} is not an image in a registry: use `binfmtd emulators import` for a file")
            for word in ("oci:/x", "./x", "/x/y", "x.tar")
        ),
        (
            ["pull", "a/b", "--authfile", "/nowhere"],
            "--authfile: /nowhere does not exist: correct the path, or write it with `skopeo login`",
        ),
        (["import", "/", "--arch", " ,"], "--arch is empty: name architectures, or leave --arch out for all"),
        *(
            (
                ["import", "/", f"--arch={word}"],
                f"--arch: {bad!r} cannot be used here: name each architecture, or leave --arch out for all",
            )
            for word, bad in (("none", "none"), ("-arm", "-arm"), ("arm,all", "all"))
        ),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    """Wrong usage ends with status 2 and one line."""
    result = run([*BINFMTD, "emulators", *arguments], env=ENVIRONMENT)
    assert (result.status, result.stdout, result.message) == (2, "", message)


def test_a_light_start(store: StoreCli) -> None:
    """`list` imports neither tarfile nor what only other commands need; `import` no daemon."""
    python, *module = store.command("list")
    loaded = set(run([python, "-X", "importtime", *module], env=ENVIRONMENT).stderr.split())
    assert "binfmtd.cli.store.directory" in loaded
    assert not {"tarfile", "structlog", "pyinotify", "binfmtd.cli.store.adding", "shutil"} & loaded
