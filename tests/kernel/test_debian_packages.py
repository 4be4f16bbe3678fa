"""The files of Debian's real packages are imported, and the real update-binfmts reads exported files.

Needs apt and the network, so it runs only on request: ``pytest -m debian``. The packages are unpacked into a directory;
none is installed.
"""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import CHECKOUT, Cli, Result, run
from support.instance import Instance

from binfmtd.formats.escapes import decode

pytestmark = pytest.mark.debian

# The packages' relevant directories; all of qemu-user would be 500 MB.
WANTED = [
    "./usr/lib/binfmt.d",
    "./usr/share/binfmts",
    "./usr/share/qemu/binfmt.d",
    "./usr/sbin",
    "./usr/lib/*/libpipeline*",
]
FIXED = ("qemu-user", "qemu-user-binfmt", "jarwrapper", "mono-runtime", "wine-binfmt", "binfmt-support", "libpipeline1")
NUMBERED = (r"^python3\.[0-9]+-minimal$", r"^llvm-[0-9]+-runtime$")  # the newest that is available


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Download the packages and unpack each into its own directory."""
    if missing := [tool for tool in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(tool) is None]:
        pytest.skip(f"{missing[0]} is not here: this is no Debian")
    directory = tmp_path_factory.mktemp("packages")
    _download(directory, *FIXED)
    for pattern in NUMBERED:
        names = run(["apt-cache", "--names-only", "search", pattern]).stdout.splitlines()
        newest_first = sorted((name.split()[0] for name in names), key=lambda name: -int(re.findall(r"\d+", name)[-1]))
        _download(directory, *newest_first, all_of_them=False)
    for archive in directory.glob("*.deb"):
        target = directory / archive.name.partition("_")[0]
        target.mkdir()
        unpack = f"dpkg-deb --fsys-tarfile '{archive}' | tar -x -C '{target}' --wildcards --no-anchored "
        subprocess.run([*["sh", "-c"], unpack + " ".join(f"'{each}'" for each in WANTED)], check=False, stderr=-1)
        archive.unlink()
    return directory


def _download(directory: Path, *packages: str, all_of_them: bool = True) -> None:
    reason = "no such package: run apt-get update"
    for wanted in [packages] if all_of_them else [(package,) for package in packages]:
        done = run(["apt-get", "download", *wanted], cwd=directory, timeout=300)
        if done.status == 0:
            return
        reason = done.stderr.strip().splitlines()[-1]
    pytest.skip(f"apt cannot download: {reason}")


def conf_files(unpacked: Path) -> Iterator[Path]:
    """Yield every binfmt.d file; the links of qemu-user-binfmt lead to qemu-user's files."""
    yield from (path for path in sorted(unpacked.glob("*/usr/**/binfmt.d/*.conf")) if not path.is_symlink())


def imported(result: Result) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = tomllib.loads(result.stdout).get("handlers", {})
    return found


def as_bytes(text: str) -> bytes:
    r"""Return magic or mask as bytes, decoded in another way than the program does: hexadecimal after each \x."""
    head, *rest = text.split("\\x")
    return head.encode() + b"".join(bytes.fromhex(part[:2]) + part[2:].encode() for part in rest)


def test_every_binfmt_d_file(unpacked: Path, module_instance: Instance, tmp_path: Path) -> None:
    """Each line of the packages' binfmt.d files becomes a handler with equal fields, and none is left out."""
    files = list(conf_files(unpacked))
    assert len(files) > 30
    cli = Cli(module_instance, tmp_path)
    result = cli("import", *map(str, files))
    assert result.status == 0
    handlers = imported(result)
    lines = [line for file in files for line in file.read_text().splitlines() if line]
    for line in lines:
        _, name, kind, offset, magic, mask, interpreter, flags = line.split(":")
        handler = handlers.pop(name)
        assert kind == "M"
        assert as_bytes(magic) == decode(str(handler["magic"]))
        assert as_bytes(mask) == decode(str(handler.get("mask", "")))
        assert (int(offset or "0"), interpreter) == (handler.get("offset", 0), handler["interpreter"])
        assert set(flags) == set(str(handler.get("flags", "")))
    assert handlers == {}
    # A rule that emulates the host itself has a warning that it will be refused; there is no other warning.
    assert all(" takes native programs of this host" in message for message in result.messages)
    assert len(result.messages) <= 1


def test_every_format_file(unpacked: Path, module_instance: Instance, tmp_path: Path) -> None:
    """Each of Debian's format files becomes a handler with equal fields, or is named with its detector."""
    files = sorted(unpacked.glob("*/usr/share/binfmts/*"))
    assert {re.sub(r"[\d.]+", "N", file.name) for file in files} >= {"pythonN", "jarwrapper", "cli"}
    assert any("llvm" in file.name for file in files)
    result = Cli(module_instance, tmp_path)("import", *map(str, files))
    assert result.status == 0
    handlers = imported(result)
    detectors = {message.partition(": ")[0] for message in result.messages if " its detector " in message}
    assert len(detectors) == len(result.messages)
    for file in files:
        keys = dict(line.split(" ", 1) for line in file.read_text().splitlines())
        if "detector" in keys:
            detectors.remove(str(file))
            continue
        handler = handlers.pop(file.name)
        assert as_bytes(keys["magic"]) == decode(str(handler["magic"]))
        assert as_bytes(keys.get("mask", "")) == decode(str(handler.get("mask", "")))
        assert keys["interpreter"] == handler["interpreter"]
        assert set(str(handler.get("flags", ""))) == {
            flag
            for key, flag in (("fix_binary", "F"), ("preserve", "P"), ("credentials", "C"))
            if keys.get(key) == "yes"
        }
    assert (handlers, detectors) == ({}, set())


@pytest.mark.parametrize("preset", ["mono", "wine"])
def test_the_presets_for_windows_programs(unpacked: Path, preset: str) -> None:
    """The preset has the name, the magic and the interpreter of Debian's own registration."""
    text = (CHECKOUT / "config" / "presets" / f"{preset}.toml").read_text()
    ((name, handler),) = tomllib.loads(text)["handlers"].items()
    (file,) = unpacked.glob(f"*/usr/share/binfmts/{name}")
    keys = dict(line.split(" ", 1) for line in file.read_text().splitlines())
    assert (handler["magic"], handler["interpreter"]) == (keys["magic"], keys["interpreter"])


def update_binfmts(instance: Instance, unpacked: Path, directory: Path, admin: Path) -> str:
    """Import a directory with the real update-binfmts and its own database; return its standard error."""
    admin.mkdir()
    library = next(unpacked.glob("libpipeline1/usr/lib/*/"))
    program = unpacked / "binfmt-support" / "usr" / "sbin" / "update-binfmts"
    options = ["--importdir", str(directory), "--admindir", str(admin), "--import"]
    done = instance.run([str(program), *options], env=os.environ | {"LD_LIBRARY_PATH": str(library)})
    assert done.returncode == 0, done.stderr
    return done.stderr


def state(instance: Instance) -> dict[str, str]:
    return {name: instance.read(name) for name in instance.names()}


def test_the_same_as_update_binfmts(unpacked: Path, instance: Instance, cli: Cli, tmp_path: Path) -> None:
    """From the packages' format files without a detector update-binfmts and binfmtd make equal entries."""
    formats = tmp_path / "formats"
    formats.mkdir()
    for file in unpacked.glob("*/usr/share/binfmts/*"):
        # The interpreters are not installed, so their handlers would wait.
        text = re.sub(r"(?m)^interpreter .*", "interpreter /usr/bin/true", file.read_text())
        if "detector " not in text:
            (formats / file.name).write_text(text)
    update_binfmts(instance, unpacked, formats, tmp_path / "admin")
    expected = state(instance)
    assert len(expected) >= 2
    instance.remove("status")
    config = cli("import", "--format", "debian", str(formats))
    assert (config.status, config.stderr) == (0, "")
    assert cli("apply", config=config.stdout).status == 0
    assert state(instance) == expected


EVERYTHING = r"""
architectures = []
[handlers.magic]
magic = '\x00\x0a :\x5c \x20'
mask = '\xff\xff\xff\xff\xff\xff\x20'
offset = 7
interpreter = "/usr/bin/true"
flags = "PFC"
[handlers.plain]
magic = 'A'
interpreter = "/usr/bin/true"
[handlers.'an extension']
extension = 'e x\x41'
interpreter = "/usr/bin/true"
flags = "F"
[handlers.long]
magic = '{}'
mask = '{}'
interpreter = "/usr/bin/true"
""".format("".join(f"\\x{byte:02x}" for byte in range(1, 256)), "\\xff" * 254 + "\\x20")


def test_update_binfmts_reads_what_is_exported(unpacked: Path, instance: Instance, cli: Cli, tmp_path: Path) -> None:
    """From the exported directory the real update-binfmts registers what `apply` would, also again, and silently."""
    assert cli("apply", config=EVERYTHING).status == 0
    expected = state(instance)
    instance.remove("status")
    output = tmp_path / "output"
    result = cli("export", "--format", "debian", "--output", str(output), config=EVERYTHING)
    assert result.status == 0
    assert all("should win over" in message for message in result.messages)  # magics at different offsets may coincide
    for admin in ("admin", "again"):
        assert update_binfmts(instance, unpacked, output, tmp_path / admin) == ""
        assert state(instance) == expected
        instance.remove("status")
