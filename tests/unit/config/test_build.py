from collections.abc import Callable
from pathlib import Path

import pytest

from binfmtd.catalog.architectures import CATALOG
from binfmtd.model.config import Config, HandlerSpec, OnStop, Policy, Shadowed, Unmanaged
from binfmtd.model.emulator_version import STORE
from binfmtd.model.handler import Flags
from binfmtd.model.match import Extension, Magic

Load = Callable[..., Config]

POF = Flags.P | Flags.O | Flags.F


EVERY = sorted(CATALOG, key=lambda name: CATALOG[name].platform is None)  # first those that images exist for


def by_name(config: Config) -> dict[str, HandlerSpec]:
    found = {spec.name: spec for spec in config.specs}
    assert len(found) == len(config.specs)
    return found


def names(config: Config) -> list[str | None]:
    return [spec.architecture for spec in config.specs]


def test_an_empty_file_means_all_by_the_defaults(load_text: Load) -> None:
    """An empty config declares every architecture, first those with images, with default paths, name and flags."""
    loaded = load_text("")
    assert names(loaded) == EVERY
    assert loaded.policy == Policy()
    assert loaded.warnings == ()
    arm64 = by_name(loaded)["qemu-aarch64"]
    assert arm64 == HandlerSpec(
        "qemu-aarch64",
        CATALOG["aarch64"].match,
        ("/usr/bin/qemu-aarch64-static", "/usr/bin/qemu-aarch64"),
        POF,
        architecture="aarch64",
        from_all=True,
        store=STORE,
        source=arm64.source,
    )
    assert arm64.source.startswith('"all" (default')


def test_every_setting_arrives(load_text: Load) -> None:
    """Each key of the file sets its field of the policy; durations are in seconds."""
    loaded = load_text(
        """
        unmanaged = "remove"
        keep = ["a*"]
        restore = ["b*", "c"]
        shadowed = "outrank"
        on_stop = "remove"
        resync = "1m"
        settle = "0s"
        reload_on_change = true
        """
    )
    assert loaded.policy == Policy(
        Unmanaged.REMOVE, ("a*",), ("b*", "c"), Shadowed.OUTRANK, OnStop.REMOVE, 60.0, 0.0, reload_on_change=True
    )


@pytest.mark.parametrize(
    ("words", "expected", "from_all"),
    [
        ([], [], []),
        (["arm64"], ["aarch64"], []),
        (["linux/arm64", "aarch64", "arm64"], ["aarch64"], []),
        (["s390x", "arm"], ["arm", "s390x"], []),
        (["all", "-arm"], [n for n in EVERY if n != "arm"], [n for n in EVERY if n != "arm"]),
        (["-arm64", "all"], [n for n in EVERY if n != "aarch64"], [n for n in EVERY if n != "aarch64"]),
        (["all", "arm64"], EVERY, [n for n in EVERY if n != "aarch64"]),
        (["arm64", "all"], EVERY, [n for n in EVERY if n != "aarch64"]),
    ],
)
def test_architectures_are_selected(
    load_text: Load, words: list[str], expected: list[str], from_all: list[str]
) -> None:
    """Architectures are selected by any name, in any order; one asked for by name does not come from "all"."""
    loaded = load_text(f"architectures = {words!r}")
    assert names(loaded) == expected
    assert [d.architecture for d in loaded.specs if d.from_all] == from_all
    assert loaded.warnings == ()


def test_a_source_names_file_and_word(load_text: Load, config: Path) -> None:
    """The source of a handler names the file and the word or table that declares it, as they are written."""
    loaded = by_name(load_text("architectures = ['all', 'arm64']\n[handlers.'a b']\nextension='x'\ninterpreter='/x'"))
    assert loaded["qemu-aarch64"].source == f'{config} architectures "arm64"'
    assert loaded["qemu-arm"].source == f'{config} architectures "all"'
    assert loaded["a b"].source == f"{config} [handlers.'a b']"


@pytest.mark.parametrize(
    ("words", "said"), [(["arm64", "-aarch64"], "the architecture is excluded"), (["-arm64"], 'add "all" to it')]
)
def test_a_selection_that_is_hardly_meant_is_warned_about(load_text: Load, words: list[str], said: str) -> None:
    """A selection that selects nothing has a warning with the reason."""
    loaded = load_text(f"architectures = {words!r}")
    assert loaded.specs == ()
    (warning,) = loaded.warnings
    assert said in warning


def test_one_architecture_differently(load_text: Load) -> None:
    """An architecture's own table overrides [emulators], key by key, and changes no other architecture."""
    loaded = by_name(
        load_text(
            """
            [emulators]
            paths = ["/opt/{name}/qemu", "/opt/any"]
            entry = "emu-{name}"
            flags = "F"
            [emulators.arm64]
            interpreter = "/opt/special-{name}"
            entry = "mine"
            priority = 7
            force = true
            [emulators.arm]
            flags = ""
            """
        )
    )
    mine = loaded["mine"]
    assert (mine.interpreters, mine.flags, mine.priority, mine.force) == (
        ("/opt/special-aarch64",),
        Flags.F,
        7,
        True,
    )
    assert mine.architecture == "aarch64"
    assert loaded["emu-arm"].flags == Flags.NONE
    assert loaded["emu-arm"].interpreters == ("/opt/arm/qemu", "/opt/any")
    assert (loaded["emu-s390x"].flags, loaded["emu-s390x"].priority) == (Flags.F, 0)


def test_versions(load_text: Load) -> None:
    """A version is a directory of the store; an architecture may have its own, or a list of interpreters."""
    loaded = by_name(
        load_text(
            """
            [emulators]
            version = "9.2.2"
            store = "/srv//store/"
            [emulators.riscv64]
            version = "8.1.5"
            [emulators.arm64]
            version = "system"
            [emulators.amd64]
            interpreters = ["/opt/fex/{name}", "store:10.0.3", "system", "/opt/last"]
            [emulators.s390x]
            interpreter = "/opt/s390x"
            """
        )
    )
    assert {name: loaded[f"qemu-{name}"].interpreters for name in ("arm", "riscv64", "aarch64", "x86_64", "s390x")} == {
        "arm": ("/srv/store/9.2.2/qemu-arm",),
        "riscv64": ("/srv/store/8.1.5/qemu-riscv64",),
        "aarch64": ("/usr/bin/qemu-aarch64-static", "/usr/bin/qemu-aarch64"),
        "x86_64": (
            "/opt/fex/x86_64",
            "/srv/store/10.0.3/qemu-x86_64",
            "/usr/bin/qemu-x86_64-static",
            "/usr/bin/qemu-x86_64",
            "/opt/last",
        ),
        "s390x": ("/opt/s390x",),
    }
    assert {spec.store for spec in loaded.values()} == {"/srv/store"}


def test_the_distributions_paths_may_be_others(load_text: Load) -> None:
    """``system`` means the config's own ``paths``."""
    loaded = load_text(
        "architectures = ['arm']\n[emulators]\npaths = ['/p/{name}']\n"
        "[emulators.arm]\ninterpreters = ['store:1', 'system']"
    )
    assert loaded.specs[0].interpreters == (f"{STORE}/1/qemu-arm", "/p/arm")


def test_a_table_for_an_architecture_that_is_not_selected_has_no_effect(load_text: Load) -> None:
    """A table for an architecture that is not selected has no effect, and no warning."""
    loaded = load_text("architectures = ['arm']\n[emulators.arm64]\nflags = 'F'")
    assert (names(loaded), loaded.warnings) == (["arm"], ())


def test_a_handler_for_an_architectures_programs(load_text: Load) -> None:
    """``match`` takes an architecture's magic and mask, under any of its names."""
    loaded = load_text("architectures = []\n[handlers.fex]\nmatch = 'amd64'\ninterpreter = '/fex'\nflags = 'F'")
    (spec,) = loaded.specs
    assert (spec.name, spec.match, spec.architecture) == ("fex", CATALOG["x86_64"].match, None)


def test_handlers_come_last_in_the_order_of_the_file(load_text: Load) -> None:
    """Handlers follow the architectures, in the order of their tables, with the values of all keys."""
    loaded = load_text(
        r"""
        architectures = ["arm64"]
        [handlers.z]
        magic = '\x00asm'
        mask = '\xff\xff\x00\xff'
        offset = 4
        interpreter = "/usr/bin/z"
        flags = "FC"
        priority = -3
        enabled = false
        force = true
        [handlers.a]
        extension = "jar"
        interpreter = "/usr/bin/a"
        """
    )
    assert [spec.name for spec in loaded.specs] == ["qemu-aarch64", "z", "a"]
    z, a = loaded.specs[1:]
    assert z.match == Magic(b"\0asm", b"\xff\xff\0\xff", 4)
    assert (z.interpreters, z.flags) == (("/usr/bin/z",), Flags.F | Flags.C | Flags.O)
    assert (z.priority, z.enabled, z.force, z.architecture) == (-3, False, True, None)
    assert a.match == Extension("jar")
    assert (a.flags, a.priority, a.enabled, a.force) == (Flags.NONE, 0, True, False)


def test_no_default_has_credentials(load_text: Load) -> None:
    """No default has flag C, which makes foreign set-uid programs root's."""
    loaded = load_text("[handlers.a]\nextension = 'jar'\ninterpreter = '/x'")
    assert not any(Flags.C in spec.flags for spec in loaded.specs)


def test_of_two_with_one_name_the_later_holds(load_text: Load, config: Path) -> None:
    """A handler replaces an architecture's entry of the same name, and a warning names both sources."""
    loaded = load_text("architectures = ['arm64']\n[handlers.qemu-aarch64]\nextension = 'x'\ninterpreter = '/x'")
    (spec,) = loaded.specs
    assert spec.match == Extension("x")
    (warning,) = loaded.warnings
    assert "'qemu-aarch64'" in warning
    assert f"{config} [handlers.qemu-aarch64]" in warning
    assert f'{config} architectures "arm64"' in warning


def test_a_long_magic_fits_as_long_as_the_line_does(load_text: Load) -> None:
    """256 bytes of magic and of mask are accepted, since no more is escaped than necessary."""
    magic, mask = "A" * 256, r"\xff" * 256
    loaded = load_text(f"[handlers.a]\nmagic = '{magic}'\nmask = '{mask}'\ninterpreter = '/x'")
    assert by_name(loaded)["a"].match == Magic(b"A" * 256, b"\xff" * 256)


def test_the_key_that_sets_an_emulators_path(load_text: Load) -> None:
    """A table of its own decides for an architecture, so messages name its key and not [emulators] paths."""
    text = 'architectures = ["arm64", "arm", "s390x", "riscv64"]\n[emulators.arm64]\ninterpreter = "/a"\n'
    text += '[emulators.arm]\ninterpreters = ["/a", "/b"]\n[emulators.s390x]\nversion = "9.2.2"\n'
    loaded = load_text(text + '[emulators.riscv64]\nflags = "F"\n')
    assert {spec.architecture: spec.set_by.paths for spec in loaded.specs} == {
        "aarch64": "[emulators.aarch64] interpreter",
        "arm": "[emulators.arm] interpreters",
        "s390x": "[emulators.s390x] version",
        "riscv64": "[emulators] paths",
    }
