"""The parsers of every text that comes from outside, each as a function of bytes.

A function returns if its parser gives a value or raises one readable error of ours; any other exception is a bug.
hypothesis (tests/kernel/reliability/test_any_input.py) and atheris (tests/fuzz/run.py) call the same functions.
"""

import io
import json
import os
import tarfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.cli.status_view import Page, history_view, named_view, narrowed, problems_view, view
from binfmtd.cli.store.images import layer_files, parse_json, platform_digest
from binfmtd.cli.store.layers import Unpacker
from binfmtd.config import build, merge
from binfmtd.config.load import load
from binfmtd.config.parse import parse
from binfmtd.daemon.state_files.foreign_entries import ForeignEntryStore
from binfmtd.daemon.state_files.ledger import Ledger
from binfmtd.errors import BinfmtdError, ConfigError, FormatError, StateError, StoreError
from binfmtd.files.trust import Trust
from binfmtd.formats import store_manifest
from binfmtd.formats.binfmt_d import is_generated, parse_conf, render_conf
from binfmtd.formats.debian import is_format, parse_format
from binfmtd.formats.elf import parse_elf
from binfmtd.formats.elf_settings import add_settings, settings_of
from binfmtd.formats.elf_types import elf_kind
from binfmtd.formats.entry_file import parse_entry
from binfmtd.formats.file_types import kind_of
from binfmtd.formats.mountinfo import parse_mountinfo
from binfmtd.formats.register_line import decode_line, encode_line
from binfmtd.formats.toml import check_toml
from binfmtd.model.desired import Facts
from binfmtd.model.match import HEAD_SIZE
from binfmtd.model.resolve import resolve
from binfmtd.model.shebang import parse_shebang
from binfmtd.report.printable import printable
from binfmtd.report.status_json import read_status
from support.elf_files import made
from support.tars import Member, symlink, tar

_LONGEST_MESSAGE = 8192  # what a person can still read; a line of binfmt.d has up to 1,920 bytes, each up to \xNN
_directory = TemporaryDirectory(prefix="binfmtd-")
_ME = Trust(os.geteuid())


def _is_one_clear(error: BinfmtdError) -> None:
    text = printable(str(error))
    assert text
    assert len(text) <= _LONGEST_MESSAGE, f"{len(text)} characters: {text[:200]}"


def toml(data: bytes) -> None:
    """Parse a text as the config, and resolve it."""
    try:
        config = build.build(merge.merge([("file", parse(data.decode("utf-8", "replace"), "file"))]), ("file",))
        resolve(config, Facts({}))
    except ConfigError as error:
        _is_one_clear(error)


def config_file(data: bytes) -> None:
    """Load a file as the config: its encoding, its text and what it includes."""
    path = Path(_directory.name) / "binfmtd.toml"
    path.write_bytes(data)
    try:
        load(str(path), trust=_ME)
    except ConfigError as error:
        _is_one_clear(error)


def binfmt_d(data: bytes) -> None:
    """Parse a file of binfmt.d; writing its rules again works, or raises FormatError."""
    is_generated(data)
    rules, problems = parse_conf(data)
    for problem in problems:
        _is_one_clear(FormatError(problem.reason))
    for rule in rules:
        with suppress(FormatError):
            check_toml(rule.name, rule.registration)
        with suppress(FormatError):
            render_conf([(rule.name, rule.registration)])


def debian(data: bytes) -> None:
    """Parse one of Debian's format files."""
    is_format(data)
    _, problems = parse_format(data)
    for problem in problems:
        _is_one_clear(FormatError(problem.reason))


def line(data: bytes) -> None:
    """Parse a registration line, and encode it again."""
    try:
        name, registration = decode_line(data)
        encode_line(name, registration)
    except FormatError as error:
        _is_one_clear(error)


def entry(data: bytes) -> None:
    """Parse the text of an entry's file."""
    parse_entry(data)


def mount_table(data: bytes) -> None:
    """Parse the mount table."""
    parse_mountinfo(data)


def ledger(data: bytes) -> None:
    """Read ledger.json and foreign.json, as an earlier daemon may have left them, and write the ledger again."""
    for name, read in (("ledger.json", Ledger), ("foreign.json", ForeignEntryStore)):
        (Path(_directory.name) / name).write_bytes(data)
        store = read(_directory.name, "boot")
        assert store.problem is None or store.problem.startswith(_directory.name)
        if isinstance(store, Ledger):
            store.intend(())


def status(data: bytes) -> None:
    """Read status.json, and render each view of it."""
    (Path(_directory.name) / "status.json").write_bytes(data)
    try:
        document = read_status(_directory.name)
        for page in (Page(0.0), Page(0.0, 80, 24, coloured=True)):
            view(document, None, page)
            view(document, None, page, everything=True)
            problems_view(document, None, page)
            history_view(document, page)
            named_view(narrowed(document, ["a"]), page)
    except StateError as error:
        _is_one_clear(error)


def executable(data: bytes) -> None:
    """Describe a file as ``explain`` does: any content has a description."""

    def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    parse_shebang(data)
    elf = parse_elf(read)
    settings_of(read)
    with suppress(FormatError):
        carrying = add_settings(data, {"A": "1"})
        assert settings_of(lambda offset, size: carrying[offset : offset + size])["A"] == "1"
    kind = elf_kind(elf, data[:HEAD_SIZE]) if elf else kind_of(read, "name")
    assert kind.description
    printable(kind.description)


def layer(data: bytes) -> None:
    """Unpack a layer of an image, into a directory that has nothing else afterwards."""
    with TemporaryDirectory(dir=_directory.name) as place:
        unpacker = Unpacker(place)
        try:
            unpacker.add_layer(io.BytesIO(data), "image")
        except StoreError as error:
            _is_one_clear(error)
        assert all(name.isdecimal() for name in os.listdir(place))
        unpacker.found()


def image(data: bytes) -> None:
    """Read a text as each of the documents of an image, and as the manifest of a version."""
    try:
        store_manifest.parse(data)
    except FormatError as error:
        _is_one_clear(error)
    try:
        document = parse_json(data, "image")
    except StoreError as error:
        _is_one_clear(error)
        return
    for read in (layer_files, partial(platform_digest, goarch="amd64")):
        try:
            read(document, source="image")
        except StoreError as error:
            _is_one_clear(error)


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        toml,
        config_file,
        binfmt_d,
        debian,
        line,
        entry,
        mount_table,
        ledger,
        status,
        executable,
        layer,
        image,
    )
}

_REGISTRATION = r":qemu-arm:M:0:\x7fELF\x01\x01\x01:\xff\xff:/usr/bin/qemu-arm:POCF"
_RECORD = {"line": _REGISTRATION, "inode": 1, "pinned": [1, 2, 3, 4, 5]}
_REMEMBERED = {"line": _REGISTRATION, "inode": 1, "enabled": True, "above": False, "lost": True}
_TOML = """architectures = ["all", "-arm"]
unmanaged = "remove"
keep = ["WSL*"]
restore = ["x"]
shadowed = "outrank"
on_stop = "keep"
resync = "1h2m3s4ms"
settle = "20ms"
include = ["/nowhere"]
reload_on_change = true
[emulators]
paths = ["/usr/bin/qemu-{name}"]
entry = "qemu-{name}"
flags = "F"
[emulators.arm64]
interpreter = '/a'
priority = 1
force = false
[handlers."a b"]
magic = '\\x00asm'
mask = '\\xff\\xff\\xff\\xff'
offset = 1
interpreter = "/usr/bin/wasm\\u0074ime"
flags = "POCF"
"""
_STATUS = {
    "schema": 1,
    "state": "converged",
    "problem": None,
    "mount": {"directory": "/m", "read_only": False, "host_unmounted": False},
    "config": {"path": "/c", "files": ["/c"], "generation": 1, "loaded_at": "2026-01-02T03:04:05+00:00", "error": None},
    "handlers": [{"name": "a", "state": "b", "flags": "F", "repairs": 0, "interpreter": "/i", "reason": ""}],
    "foreign": [{"name": "x", "enabled": True}],
    "foreign_count": {"enabled": 1, "disabled": 0},
    "contended": ["a"],
    "paused": [{"name": "a", "until": None}],
    "probed": {"at": None, "error": None, "architectures": []},
    "passes": 1,
    "repairs": 1,
    "history": [
        {
            "first_at": "2026-01-02T03:04:05+00:00",
            "at": "2026-01-02T03:04:05+00:00",
            "event": "repaired",
            "entries": ["a", "b"],
            "count": 2,
            "times": 2,
            "drift": "missing",
            "reason": "removed",
            "detail": None,
            "served_ms": 0.3,
            "took_ms": 40.0,
            "pass": "a-1",
        }
    ],
    "last_pass": {"id": "a-1", "at": "2026-01-02T03:04:05+00:00", "trigger": "start", "actions": 1, "duration_us": 1},
}

SEEDS: dict[str, tuple[bytes, ...]] = {
    "toml": (_TOML.encode(),),
    "config_file": (_TOML.encode(), b"\xff", b"a = {b = [[{}]]}"),
    "binfmt_d": (f"# x\n; y\n{_REGISTRATION}\n:jar:E::jar::/usr/bin/jexec:\n".encode(),),
    "debian": (b"package a\ninterpreter /i\nmagic \\x00\\x41\noffset 1\nmask \\xff\\xff\nfix_binary yes\n", b"# x\n"),
    "line": (_REGISTRATION.encode(), b",a,E,,b,,/i,\n"),
    "entry": (
        b"enabled\ninterpreter /i\nflags: POCF\noffset 2\nmagic 41\nmask 00\n",
        b"disabled\ninterpreter /i\nflags: \nextension .b\n",
    ),
    "mount_table": (b"22 1 0:21 / /proc/sys\\040x rw,ro shared:1 - binfmt_misc none rw\n",),
    "ledger": (
        json.dumps({"schema": 1, "boot_id": "boot", "entries": {"qemu-arm": _RECORD}}).encode(),
        json.dumps({"schema": 1, "boot_id": "boot", "entries": [_REMEMBERED]}).encode(),
    ),
    "status": (json.dumps(_STATUS).encode(),),
    "executable": (
        made((3, b"/lib/ld.so.1\0"), (0x6474E553, bytes(32)), machine=62),
        tiny_program(CATALOG["armeb"]),
        add_settings(tiny_program(CATALOG["x86_64"]), {"QEMU_CPU": "max", "A": ""}),
        b"MZ" + bytes(58) + b"\x40\0\0\0" + b"PE\0\0" + bytes(250),
        b"PK\x03\x04" + bytes(22) + b"\x09\0\x04\0META-INF/",
        b"#! /bin/sh -e \n",
    ),
    "layer": (
        tar([Member("usr/bin/qemu-arm", b"arm"), symlink("a/qemu-arm", "/usr/bin/qemu-arm"), Member("usr/.wh.bin")]),
        tar([Member("long", b"30 comment=xxxxxxxxxxxxxxxxxx\n", tarfile.XHDTYPE), Member("qemu-arm", b"arm")]),
    ),
    "image": (
        b'{"schemaVersion": 2, "manifests": [{"digest": "sha256:0", "platform": {"os": "linux", "variant": "v8"}}]}',
        b'{"schemaVersion": 2, "layers": [{"digest": "sha256:' + b"0" * 64 + b'"}]}',
        json.dumps(
            {"source": "x", "digest": None, "platform_digest": None, "created": "x", "architectures": None}
            | {"files": {"qemu-arm": {"sha256": "0", "size": 1, "version": None}}}
        ).encode(),
    ),
}
