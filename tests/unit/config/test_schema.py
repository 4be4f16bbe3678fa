from collections.abc import Callable
from pathlib import Path

import pytest

from binfmtd.config.parse import parse
from binfmtd.config.schema import ConfigFile
from binfmtd.config.tables import dotted
from binfmtd.errors import ConfigError
from binfmtd.model.config import Config, Policy

Load = Callable[..., Config]

WASM = "[handlers.wasm]\nmagic = '\\x00asm'\ninterpreter = '/usr/bin/wasmtime'\n"


def handler(line: str) -> str:
    return f"{WASM}{line}\n"


BAD = [
    # the text, the key that the message names, a part of the message
    ("setle = '20ms'", "setle", "unknown key: did you mean settle or sealed?"),
    ("restor = []", "restor", "did you mean restore"),
    ("restore = 'x'", "restore", "'x' must be an array, like"),
    ("zzzzzz = 1", "zzzzzz", "the valid keys are architectures, unmanaged, keep"),
    ("unmanaged = 'kep'", "unmanaged", "'kep' is not valid: write 'keep' or 'remove'"),
    ("unmanaged = 1", "unmanaged", "write 'keep' or 'remove'"),
    ("shadowed = 'outrang'", "shadowed", "write 'report' or 'outrank'"),
    ("on_stop = true", "on_stop", "write 'keep' or 'remove'"),
    ("keep = 'x'", "keep", "'x' must be an array, like"),
    ("keep = ['x', 'a/b*']", "keep[1]", "'a/b*' contains '/', which no entry's name contains: write the name alone"),
    ("restore = ['/proc/sys/fs/binfmt_misc/x']", "restore[0]", "contains '/', which no entry's name contains"),
    ('keep = ["a\\u0000"]', "keep[0]", "contains NUL, which no entry's name contains"),
    ("restore = ['']", "restore[0]", "an empty pattern never matches: write the name of an entry, or remove it"),
    ("keep = ['x', 1]", "keep[1]", "1 must be a string, in quotes"),
    ("reload_on_change = 'yes'", "reload_on_change", "'yes' must be true or false, without quotes"),
    ("reload_on_change = 1", "reload_on_change", "1 must be true or false"),
    (
        "settle = 20",
        "settle",
        '20 is not a duration: write whole numbers with units (h, m, s, ms) in quotes, like "20ms"',
    ),
    ("settle = '20'", "settle", "'20' is not a duration"),
    ("settle = ''", "settle", "'' is not a duration"),
    ("settle = '1001ms'", "settle", "out of range: write 0s to 1s"),
    ("resync = '999ms'", "resync", "out of range: write 1s to"),
    ("resync = '9999h'", "resync", "out of range"),
    ("resync = '1m1h'", "resync", "is not a duration"),
    ("resync = '-1m'", "resync", "is not a duration"),
    ("resync = 2024-01-01", "resync", "2024-01-01 is not a duration"),
    ("resync = 12:30:00", "resync", "12:30:00 is not a duration"),
    ("probe = 'after'", "probe", "'after' is not a duration"),
    ("probe = 'after'", "probe", "or one of off, after-repair"),
    ("probe = true", "probe", "true is not a duration: "),
    ("probe = true", "probe", "or one of off, after-repair"),
    ("probe = '1s'", "probe", "out of range: write 10s to"),
    ("[labels]\nfile = 'x'", "labels.file", "absolute path"),
    ("[labels]\nfile = 1", "labels.file", "1 must be a string"),
    ("[labels]\nfiles = '/x'", "labels.files", "did you mean file?"),
    ("architectures = 'all'", "architectures", "must be an array"),
    ("architectures = ['arm46']", "architectures[0]", "did you mean arm"),
    ("architectures = ['-arm46']", "architectures[0]", "did you mean arm"),
    ("architectures = ['-all']", "architectures[0]", "[] for none"),
    ("architectures = ['']", "architectures[0]", "unknown architecture ''"),
    ("metrics = 1", "metrics", "1 must be a table"),
    ("[metrics]\nlisten = 9427", "metrics.listen", "must be a string, in quotes"),
    ("[metrics]\nlisten = 'localhost:9427'", "metrics.listen", "is not an address with a port: write 127.0.0.1:9427"),
    ("[metrics]\nlistenn = '127.0.0.1:9427'", "metrics.listenn", "unknown key: did you mean listen?"),
    ("[metrics]\ntextfile = 'x.prom'", "metrics.textfile", "must be an absolute path that ends in .prom"),
    ("[metrics]\ntextfile = '/x'", "metrics.textfile", "must be an absolute path that ends in .prom"),
    ("emulators = 1", "emulators", "1 must be a table"),
    ("[emulators]\nby_architecture = 1", "emulators.by_architecture", "unknown architecture"),
    ("[emulators.amr64]\nversoin = '1'", "emulators.amr64", "mean arm64, amd64 or sparc64? (and 1 more mistake)"),
    ("architectures = ['amr64', 'foo']", "architectures[0]", "amd64 or sparc64? (and 1 more mistake)"),
    ("[emulators]\npath = ['/x']", "emulators.path", "unknown key: did you mean paths?"),
    (
        "[emulators]\narchitectures = ['arm64']",
        "emulators.architectures",
        "unknown key: it belongs to no table: write it above the first [table] of the file",
    ),
    ("[emulators]\narm64 = '/x'", "emulators.arm64", "'/x' must be a table"),
    ("[emulators]\npaths = []", "emulators.paths", "give at least one"),
    (f"[emulators]\npaths = {['/x/{name}'] * 101}", "emulators.paths", "has more than 100 items: write fewer"),
    (f"include = {['/x'] * 101}", "include", "has more than 100 items: write fewer"),
    ("[emulators]\npaths = ['qemu-{name}']", "emulators.paths[0]", "must be an absolute path"),
    ("[emulators]\npaths = ['/{arch}']", "emulators.paths[0]", "{name}, the only placeholder"),
    ("[emulators]\npaths = ['/{name']", "emulators.paths[0]", "only placeholder"),
    ('[emulators]\npaths = ["/a\\u0000"]', "emulators.paths[0]", "NUL"),
    ("[emulators]\nentry = 'qemu'", "emulators.entry", "put {name} into it"),
    ("[emulators]\nentry = 'a/{name}'", "emulators.entry", "must not contain '/'"),
    ("[emulators]\nentry = '.binfmtd~{name}'", "emulators.entry", "reserved for binfmtd's stand-ins: choose another"),
    ("[emulators]\nflags = 'FX'", "emulators.flags", "'X' is not one of P, O, C, F"),
    ("[emulators]\nflags = ['F']", "emulators.flags", "must be a string"),
    ("[emulators.arm46]\nforce = true", "emulators.arm46", "did you mean arm"),
    ("[emulators.pahts]\na = 1", "emulators.pahts", "unknown architecture 'pahts': did you mean paths? (and 1 more"),
    ("[emulators.stroe]", "emulators.stroe", "unknown architecture 'stroe': did you mean store?"),
    ("[emulators.arm64]\npaths = ['/x']", "emulators.arm64.paths", "unknown key"),
    ("[emulators.arm64]\nenvironment = {A = '1'}", "emulators.arm64.environment", "`binfmtd emulators configure "),
    ("[emulators]\nenvironment = {A = '1'}", "emulators.environment", "`binfmtd emulators configure VERSION --name"),
    ("[handlers.x]\nmatch = 'arm46'\ninterpreter = '/x'", "handlers.x.match", "did you mean arm"),
    ("[handlers.x]\nmatch = 'arm'\nmagic = 'x'\ninterpreter = '/x'", "handlers.x", "remove magic, or match"),
    ("[emulators]\nversion = '.hidden'", "emulators.version", "cannot be the name of a version"),
    ("[emulators]\nversion = 9.2", "emulators.version", "9.2 must be a string"),
    ("[emulators]\nstore = 'emulators'", "emulators.store", "not the absolute path of a directory"),
    ("[emulators]\nstore = '/{name}'", "emulators.store", "without braces"),
    ("[emulators.arm64]\nversion = 'a/b'", "emulators.arm64.version", "cannot be the name of a version"),
    ("[emulators.arm64]\ninterpreters = []", "emulators.arm64.interpreters", "give at least one"),
    ("[emulators.arm64]\ninterpreters = ['9.2.2']", "emulators.arm64.interpreters[0]", '"store:VERSION" or "system"'),
    ("[emulators.arm64]\ninterpreters = ['store:']", "emulators.arm64.interpreters[0]", "name of a version"),
    ("[emulators.arm64]\ninterpreters = ['store:system']", "emulators.arm64.interpreters[0]", "another name"),
    ("[emulators.arm64]\ninterpreters = ['/{x}']", "emulators.arm64.interpreters[0]", "only placeholder"),
    ("[emulators.arm64]\ninterpreter = '/x'\nversion = '1'", "emulators.arm64", "exclude each other: keep one"),
    ("[emulators.arm64]\nentry = ''", "emulators.arm64.entry", "1 to 255 bytes"),
    ("[emulators.arm64]\nentry = 'status'", "emulators.arm64.entry", "choose another"),
    ("[emulators.arm64]\npriority = 1.5", "emulators.arm64.priority", "1.5 must be a whole number"),
    ("[emulators.arm64]\nforce=true\n[emulators.aarch64]\nforce=true", "emulators.aarch64", "same architecture as"),
    (f"[emulators.arm64]\ninterpreter = '/{'x' * 2000}'", "emulators.arm64.interpreter", "accepts at most 1920"),
    (f"[emulators]\npaths = ['/{'x' * 2000}']", "emulators.paths", "shorten it"),
    ("handlers = []", "handlers", "must be a table"),
    ("[handlers]\nwasm = 'x'", "handlers.wasm", "must be a table"),
    ("[handlers.wasm]\ninterpreter = '/x'", "handlers.wasm", "give exactly one of magic and extension"),
    ("[handlers.wasm]\nmagic = 'x'", "handlers.wasm", "interpreter is missing: give the absolute path"),
    ("[handlers.wasm]\nintrepreter = '/x'", "handlers.wasm.intrepreter", "did you mean interpreter?"),
    (handler("extension = 'wasm'"), "handlers.wasm", "exactly one"),
    (handler("mask = 'x'"), "handlers.wasm", "make them the same length"),
    (handler("offset = 253"), "handlers.wasm", "shorten the magic or lower the offset"),
    (handler("offset = -1"), "handlers.wasm", "write 0 or more"),
    (handler("offset = true"), "handlers.wasm.offset", "must be a whole number"),
    (handler("flags = 'pf'"), "handlers.wasm.flags", "not one of P, O, C, F"),
    (handler("enabled = 'no'"), "handlers.wasm.enabled", "must be true or false"),
    (handler(f"priority = 0x{'f' * 5000}"), "handlers.wasm.priority", "a number with thousands of digits"),
    (handler("priority = 2147483648"), "handlers.wasm.priority", "2147483648 is too large: write 2147483647 or less"),
    (
        handler("priority = -2147483649"),
        "handlers.wasm.priority",
        "-2147483649 is too small: write -2147483648 or more",
    ),
    (handler(f"offset = 0b{'1' * 50000}"), "handlers.wasm.offset", "a number with thousands of digits"),
    (f"[emulators.arm64]\npriority = 0x{'f' * 5000}", "emulators.arm64.priority", "a number with thousands of digits"),
    (f"unmanaged = 0x{'f' * 5000}", "unmanaged", "a number with thousands of digits"),
    (f"architectures = [0o{'7' * 50000}]", "architectures", "a number with thousands of digits"),
    (handler("priority = '1'"), "handlers.wasm.priority", "without quotes"),
    ("[handlers.x]\nmagic = ''\ninterpreter = '/x'", "handlers.x", "at least one byte"),
    ("[handlers.x]\nmagic = '\\xg'\ninterpreter = '/x'", "handlers.x.magic", "two hexadecimal digits"),
    ("[handlers.x]\nmagic = 1\ninterpreter = '/x'", "handlers.x.magic", "must be a string"),
    ("[handlers.x]\nmagic = 'x'\ninterpreter = 'x'", "handlers.x.interpreter", "absolute path"),
    ('[handlers.x]\nmagic = "x"\ninterpreter = "/x\\n"', "handlers.x.interpreter", "newline"),
    (f"[handlers.x]\nmagic = 'x'\ninterpreter = '/{'x' * 1920}'", "handlers.x", "shorten it"),
    ("[handlers.x]\nextension = '.jar'\ninterpreter = '/x'", "handlers.x.extension", "write it without dots"),
    ("[handlers.x]\nextension = 'a/b'\ninterpreter = '/x'", "handlers.x", "without '/'"),
    ("[handlers.x]\nextension = ''\ninterpreter = '/x'", "handlers.x", "non-empty"),
    ("[handlers.x]\nextension = 'jar'\nmask = 'x'\ninterpreter = '/x'", "handlers.x", "remove mask"),
    ("[handlers.x]\nextension = 'jar'\noffset = 0\ninterpreter = '/x'", "handlers.x", "remove offset"),
    ("[handlers.register]\nmagic = 'x'\ninterpreter = '/x'", "handlers.register", "choose another"),
    ("[handlers.'.binfmtd~x']\nmagic = 'x'\ninterpreter = '/x'", "handlers.'.binfmtd~x'", "choose another"),
    ("[handlers.'a/b']\nmagic = 'x'\ninterpreter = '/x'", "handlers.'a/b'", "must not contain '/'"),
    (f"[handlers.{'x' * 256}]\nmagic = 'x'\ninterpreter = '/x'", "handlers.x", "1 to 255 bytes"),
    ("keep = [1]\nsetle = 1", "setle", "did you mean settle or sealed? (and 1 more mistake)"),
    ("setle = 1\narchitectures = ['amr64', '-all']", "setle", "did you mean settle or sealed? (and 2 more mistakes)"),
    (
        "setle = 1\n[emulators]\namr64 = {}\nversoin = '1'",
        "emulators.amr64",
        "mean arm64, amd64 or sparc64? (and 2 more",
    ),
]


@pytest.mark.parametrize(("text", "key", "said"), BAD, ids=[f"{key}-{n}"[:60] for n, (_, key, _) in enumerate(BAD)])
def test_a_bad_config_names_file_key_and_remedy(load_text: Load, config: Path, text: str, key: str, said: str) -> None:
    """An invalid value is one line: the file, the dotted key, the fault, and what to write instead."""
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    message = str(caught.value)
    assert message.startswith(f"{config}: {key}")
    assert said in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "line 1"),
        ("\n\nunmanaged = keep", "line 3"),
        ("keep = []\nkeep = []", "line 2"),
        ('magic = "\\x7fELF"', "single quotes"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("a = " + "9" * 5000, "not valid TOML"),
        ('a = "\\ud800"', "not valid TOML"),
    ],
)
def test_a_syntax_error_names_the_line(text: str, said: str) -> None:
    """Any text that is not TOML is one ConfigError, with the line if the parser reports it."""
    with pytest.raises(ConfigError, match=r"^/etc/b\.toml: not valid TOML: ") as caught:
        parse(text, "/etc/b.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_setting_of_the_policy_has_its_key() -> None:
    """The keys of the config are exactly the fields of Policy and the tables."""
    tables = {"architectures", "include", "metrics", "labels", "emulators", "handlers"}
    assert set(Policy._fields) | tables == ConfigFile.__optional_keys__


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("handlers", "wasm", "magic"), "handlers.wasm.magic"),
        (("keep", 1), "keep[1]"),
        (("handlers", "a.b"), "handlers.'a.b'"),
        (("handlers", "a\nb"), r"handlers.'a\nb'"),
    ],
)
def test_keys_are_shown_as_toml_writes_them(parts: tuple[str | int, ...], text: str) -> None:
    """Odd names in a key are quoted, and their control characters are escaped."""
    assert dotted(*parts) == text
