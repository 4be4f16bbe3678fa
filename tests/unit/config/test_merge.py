import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.config.load import load
from binfmtd.errors import ConfigError
from binfmtd.files.trust import Trust
from binfmtd.model.config import Config, Metrics
from binfmtd.model.emulator_version import STORE
from binfmtd.model.handler import Flags

Load = Callable[..., Config]


def test_a_later_key_wins_and_an_array_replaces(load_text: Load, config: Path) -> None:
    """conf.d follows the main file, in name order; a later key replaces the earlier one, and other keys stay."""
    loaded = load_text(
        "architectures = ['arm64']\nkeep = ['a', 'b']\nresync = '1m'",
        b="resync = '2m'\narchitectures = ['arm']",
        a="resync = '3m'\nkeep = ['c']",
    )
    assert (loaded.policy.resync, loaded.policy.keep) == (120.0, ("c",))
    (spec,) = loaded.specs
    assert spec.architecture == "arm"
    assert spec.source == f'{config.parent}/conf.d/b.toml architectures "arm"'
    assert loaded.sources == (str(config), f"{config.parent}/conf.d/a.toml", f"{config.parent}/conf.d/b.toml")


def test_emulators_merge_key_by_key_under_any_name(load_text: Load) -> None:
    """[emulators.arm64] of one file and [emulators.aarch64] of another are one table."""
    loaded = load_text(
        "architectures = ['arm64']\n[emulators]\nflags = ''\n[emulators.arm64]\nentry = 'e'\npriority = 1",
        a="[emulators]\npaths = ['/p/{name}']\n[emulators.aarch64]\npriority = 2",
    )
    (spec,) = loaded.specs
    assert (spec.name, spec.priority, spec.flags) == ("e", 2, Flags.NONE)
    assert spec.interpreters == ("/p/aarch64",)


@pytest.mark.parametrize(
    ("later", "interpreters"),
    [
        ("version = '2'", (f"{STORE}/2/qemu-arm",)),
        ("interpreters = ['/x', 'store:3']", ("/x", f"{STORE}/3/qemu-arm")),
        ("interpreter = '/y'", ("/y",)),
        ("flags = 'F'", ("/earlier",)),
    ],
)
def test_a_later_choice_of_an_emulator_replaces_the_earlier(
    load_text: Load, later: str, interpreters: tuple[str, ...]
) -> None:
    """interpreter, interpreters and version exclude each other, so a later file's key replaces an earlier one's."""
    loaded = load_text(
        "architectures = ['arm']\n[emulators.arm]\ninterpreter = '/earlier'", a=f"[emulators.arm]\n{later}"
    )
    assert loaded.specs[0].interpreters == interpreters


def test_metrics_merge_key_by_key(load_text: Load) -> None:
    """One file may name the textfile, another the address for HTTP; of one key the later value wins."""
    loaded = load_text(
        "architectures = []\n[metrics]\ntextfile = '/t/a.prom'\nlisten = '127.0.0.1:1'",
        a="[metrics]\nlisten = '127.0.0.1:2'",
        b="settle = '5ms'",
    )
    assert loaded.metrics == Metrics("/t/a.prom", ("127.0.0.1", 2))


def test_a_later_handler_replaces_the_whole_table(load_text: Load, config: Path) -> None:
    """A later table of a handler replaces the whole earlier one, and its place; a warning names both files."""
    loaded = load_text(
        "architectures = []\n"
        "[handlers.x]\nmagic = 'x'\ninterpreter = '/old'\npriority = 5\n"
        "[handlers.y]\nmagic = 'y'\ninterpreter = '/y'",
        a="[handlers.x]\nextension = 'x'\ninterpreter = '/new'",
    )
    assert [(d.name, d.interpreters, d.priority) for d in loaded.specs] == [
        ("y", ("/y",), 0),
        ("x", ("/new",), 0),
    ]
    (warning,) = loaded.warnings
    assert warning == f"{config.parent}/conf.d/a.toml: handlers.x: replaces the whole table of this name in {config}"


def test_one_emulator_for_several_architectures(load_text: Load) -> None:
    """A path without {name} gives several architectures one emulator, which is a warning; for one alone it is none."""
    paths = "[emulators]\npaths = ['/opt/qemu-arm64']\n"
    (warning,) = load_text(f"architectures = ['arm64', 'riscv64']\n{paths}").warnings
    assert warning.startswith("/opt/qemu-arm64 is the interpreter of aarch64, riscv64: if it is for one of them alone")
    assert " and 30 more: " in load_text(paths).warnings[0]
    assert load_text(f"architectures = ['arm64']\n{paths}").warnings == ()


def test_a_list_that_is_replaced_is_not_checked(load_text: Load) -> None:
    """A wrong name of an architecture is no error in a list that a later file replaces."""
    loaded = load_text("architectures = ['nonsense']", a="architectures = ['arm64']")
    assert [spec.name for spec in loaded.specs] == ["qemu-aarch64"]


@pytest.mark.parametrize(
    ("later", "key"),
    [
        ("[emulators.arm64]\nentry = 'status'", "emulators.arm64.entry"),
        ("[emulators]\nentry = 'a/{name}'", "emulators.entry"),
        ("architectures = ['nonsense']", "architectures[0]"),
        ("setle = '1s'", "setle"),
    ],
)
def test_an_error_names_the_file_that_is_to_blame(load_text: Load, config: Path, later: str, key: str) -> None:
    """An error names the file that caused it, even if it shows only when all files are merged."""
    with pytest.raises(ConfigError) as caught:
        load_text("architectures = ['all']\n[emulators]\nflags = 'F'", a=later, b="settle = '5ms'")
    assert str(caught.value).startswith(f"{config.parent}/conf.d/a.toml: {key}: ")


FILES = {
    "10-a.toml": "resync = '10s'\n[handlers.a]\nmagic = 'a'\ninterpreter = '/10'",
    "20-b.toml": "resync = '20s'\n[handlers.a]\nmagic = 'a'\ninterpreter = '/20'",
    "9.toml": "resync = '9s'\narchitectures = ['arm']",
    "Z.toml": "architectures = ['arm64', 'arm']",
    "z.toml": "[emulators.arm]\nentry = 'z'",
    "é.toml": "[handlers.b]\nmagic = 'a'\ninterpreter = '/e'",
}

EXPECTED: list[object] = [
    ("qemu-aarch64", ("/usr/bin/qemu-aarch64-static", "/usr/bin/qemu-aarch64"), 'conf.d/Z.toml architectures "arm64"'),
    ("z", ("/usr/bin/qemu-arm-static", "/usr/bin/qemu-arm"), 'conf.d/Z.toml architectures "arm"'),
    ("a", ("/20",), "conf.d/20-b.toml [handlers.a]"),
    ("b", ("/e",), "conf.d/é.toml [handlers.b]"),
    9.0,
]


@given(order=st.permutations(sorted(FILES)), seed=st.integers())
def test_the_order_of_the_directory_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], seed: int
) -> None:
    """The Config does not depend on the order in which files were made, or in which the directory lists them."""
    directory = tmp_path_factory.mktemp("order")
    (directory / "conf.d").mkdir()
    for name in order:
        (directory / "conf.d" / name).write_text(FILES[name], "utf-8")
    listdir = os.listdir

    def shuffled(path: str) -> list[str]:
        names = listdir(path)
        Random(seed).shuffle(names)  # noqa: S311  hypothesis has the seed
        return names

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "listdir", shuffled)
        loaded = load(None, trust=Trust(os.geteuid()), default=str(directory / "binfmtd.toml"))
    assert [Path(source).name for source in loaded.sources] == [
        "10-a.toml",
        "20-b.toml",
        "9.toml",
        "Z.toml",
        "z.toml",
        "é.toml",
    ]
    assert _without_directory(loaded, directory) == EXPECTED


def _without_directory(loaded: Config, directory: Path) -> list[object]:
    shown: list[object] = [(d.name, d.interpreters, d.source.removeprefix(f"{directory}/")) for d in loaded.specs]
    return [*shown, loaded.policy.resync]
