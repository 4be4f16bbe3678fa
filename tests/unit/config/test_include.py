"""``include``: rules of binfmt.d files as declared handlers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from binfmtd.config import include
from binfmtd.config import load as load_module
from binfmtd.config.build import MOST_WARNINGS, OF_RULE
from binfmtd.config.include import SYSTEMD
from binfmtd.config.source import age, watched
from binfmtd.errors import ConfigError
from binfmtd.files.paths import ANY_NAME
from binfmtd.formats.binfmt_d import render_conf
from binfmtd.model.config import Config, HandlerSpec
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Magic

Load = Callable[..., Config]

NONE = "architectures = []\n"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Return a directory to include."""
    directory = tmp_path / "rules"
    directory.mkdir()
    return directory


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return two directories in the place of systemd's four; tests/kernel has the real ones."""
    etc, lib = tmp_path / "etc", tmp_path / "lib"
    for directory in (etc, lib):
        directory.mkdir()
    monkeypatch.setattr(include, "DIRECTORIES", (str(etc), str(lib)))
    return etc, lib


def names(config: Config) -> list[str]:
    return [spec.name for spec in config.specs]


def test_a_file_that_is_none_does_not_fill_the_log(load_text: Load, rules: Path) -> None:
    """A file full of bad lines has a warning for each of the first ten, and one with the number of the rest."""
    (rules / "a.conf").write_text("nothing of the kind\n" * 50_000)
    warnings = load_text(f"{NONE}include = ['{rules}']").warnings
    assert len(warnings) == 11
    assert warnings[-1] == f"{rules}/a.conf: 49990 more bad lines were not included: check that this is a binfmt.d file"


def test_a_rule_is_a_declaration(load_text: Load, rules: Path) -> None:
    """A rule declares everything that its line contains, and its source is the file and the line."""
    (rules / "a.conf").write_text("# comment\n:a:M:1:AB:\\xff\\x00:/i:CF\n")
    config = load_text(f"{NONE}include = ['{rules}']")
    assert config.specs == (
        HandlerSpec(
            "a",
            Magic(b"AB", b"\xff\0", 1),
            ("/i",),
            Flags.parse("CF"),
            source=f"{rules}/a.conf:2",
            set_by=OF_RULE,
        ),
    )
    assert config.warnings == ()


def test_what_systemd_registers_itself_is_marked(load_text: Load, rules: Path, systemd: tuple[Path, Path]) -> None:
    """Rules in systemd's directories are marked as included, whichever word includes them.

    systemd-binfmt registers these at boot, so `--persistent` need not write them for the next boot.
    """
    for directory in (rules, *systemd):
        (directory / f"{directory.name}.conf").write_text(f":{directory.name}:M::A::/i:\n")
    config = load_text(f"{NONE}include = ['{rules}', '{systemd[0]}']")
    assert {d.name: d.included for d in config.specs} == {"rules": False, "etc": True}
    config = load_text(f"{NONE}include = ['binfmt.d']")
    assert {d.name: d.included for d in config.specs} == {"etc": True, "lib": True}


def test_nothing_is_included_by_default(load_text: Load, systemd: tuple[Path, Path]) -> None:
    """By default nothing is included, and a later file's array replaces the earlier one."""
    (systemd[0] / "a.conf").write_text(":a:M::A::/i:\n")
    assert names(load_text(NONE)) == []
    assert names(load_text(f"{NONE}include = ['binfmt.d']")) == ["a"]
    assert names(load_text(f"{NONE}include = ['binfmt.d']", later="include = []")) == []


def test_systemds_precedence(load_text: Load, systemd: tuple[Path, Path]) -> None:
    """The higher directory's file replaces and masks, and files are in order of their names over all directories."""
    etc, lib = systemd
    (etc / "b.conf").write_text(":b:M::B::/etc:\n")
    (etc / "m.conf").symlink_to("/dev/null")
    for name in ("c", "b", "m", "a"):
        (lib / f"{name}.conf").write_text(f":{name}:M::{name}::/lib:\n:{name}2:M::{name}2::/lib:\n")
    config = load_text(f"{NONE}include = ['{SYSTEMD}']")
    assert [(d.name, d.interpreters[0]) for d in config.specs] == [
        ("a", "/lib"),
        ("a2", "/lib"),
        ("b", "/etc"),
        ("c", "/lib"),
        ("c2", "/lib"),
    ]
    assert config.warnings == ()


def test_the_order_is_catalog_included_handlers(load_text: Load, rules: Path, systemd: tuple[Path, Path]) -> None:
    """Included rules come after the catalog and before [handlers], in the order of the words.

    So of equal priority the administrator's own handler wins.
    """
    (rules / "a.conf").write_text(":rule:M::A::/i:\n")
    (systemd[1] / "z.conf").write_text(":systemd:M::A::/i:\n")
    text = f"architectures = ['arm']\ninclude = ['{rules}', 'binfmt.d']\n"
    text += "[handlers.own]\nmagic = 'A'\ninterpreter = '/i'\n"
    assert names(load_text(text)) == ["qemu-arm", "rule", "systemd", "own"]


def test_a_bad_line_is_a_warning_and_the_others_count(load_text: Load, rules: Path) -> None:
    """A bad line is a warning with file, line and reason; the file's other lines are declared."""
    (rules / "a.conf").write_text(":a:M::A::/i:\n:b:M::\\x4::/i:\n:c:M::C::/i:\n")
    config = load_text(f"{NONE}include = ['{rules}']")
    assert names(config) == ["a", "c"]
    (warning,) = config.warnings
    assert warning.startswith(f"{rules}/a.conf:2: not included: \\x4 is not an escape")


def test_a_line_that_we_could_not_write_is_a_warning(load_text: Load, rules: Path) -> None:
    """A rule whose fields contain all of our delimiters is a warning: it could not be registered."""
    (rules / "b.conf").write_text("\u0001:|,@%+=~^!\u0001M\u0001\u0001A\u0001\u0001/i\u0001\n")
    config = load_text(f"{NONE}include = ['{rules}']")
    (warning,) = config.warnings
    assert warning.startswith(f"{rules}/b.conf:1: not included: ")
    assert "no delimiter" in warning


def test_many_warnings(load_text: Load, rules: Path) -> None:
    """Of many warnings the first are reported, and the number of the rest."""
    (rules / "a.conf").write_text("".join(f":x:M::{n:04}::/i:\n" for n in range(1000)))
    warnings = load_text(f"{NONE}include = ['{rules}']").warnings
    assert len(warnings) == MOST_WARNINGS + 1
    assert warnings[-1] == f"and {999 - MOST_WARNINGS} more warnings, which are not shown"


def test_the_same_name_again(load_text: Load, rules: Path) -> None:
    """The later declaration of a name wins, with a warning: included over catalog, [handlers] over included."""
    (rules / "a.conf").write_text(":qemu-arm:M::A::/i:\n:two:M::B::/i:\n:two:M::C::/i:\n")
    text = f"architectures = ['arm']\ninclude = ['{rules}']\n[handlers.two]\nmagic = 'D'\ninterpreter = '/i'\n"
    config = load_text(text)
    assert [d.match for d in config.specs] == [Magic(b"A"), Magic(b"D")]
    assert [warning.partition(":")[0] for warning in config.warnings] == [
        "entry 'qemu-arm' is declared twice",
        "entry 'two' is declared twice",
        "entry 'two' is declared twice",
    ]
    assert f"{rules}/a.conf:1 replaces" in config.warnings[0]


def test_a_whole_distributions_rules_are_one_warning(load_text: Load, rules: Path) -> None:
    """Included rules that replace entries of "all" have one warning together.

    Debian's qemu-user-binfmt has these names, so that is no mistake of an administrator.
    """
    (rules / "a.conf").write_text(":qemu-arm:M::A::/i:\n:qemu-ppc:M::B::/i:\n")
    (warning,) = load_text(f"include = ['{rules}']").warnings
    assert warning == 'included files replace these entries that "all" declares: qemu-arm, qemu-ppc'


def test_our_own_file_is_left_out(load_text: Load, rules: Path) -> None:
    """A file that binfmtd wrote is not included, and raises no warning.

    It derives from a config, and would bring back handlers that the config no longer has.
    """
    says = Registration(Magic(b"A"), "/i", Flags.NONE)
    (rules / "binfmtd.conf").write_bytes(render_conf([("a", says)]))
    config = load_text(f"{NONE}include = ['{rules}']")
    assert (config.specs, config.warnings) == ((), ())


@pytest.mark.parametrize("what", ["directory", "file"])
def test_what_others_can_write_is_left_out(load_text: Load, systemd: tuple[Path, Path], what: str) -> None:
    """A file or directory that another user can write is not included; a warning has its path and the remedy.

    A directory that another user can write cannot even hide a file in a lower one.
    """
    etc, lib = systemd
    for directory in systemd:
        (directory / "a.conf").write_text(f":{directory.name}:M::A::/i:\n")
    (lib / "b.conf").write_text(":b:M::B::/i:\n")
    bad = etc if what == "directory" else etc / "a.conf"
    bad.chmod(0o777)
    config = load_text(f"{NONE}include = ['binfmt.d']")
    assert names(config) == (["lib", "b"] if what == "directory" else ["b"])
    (warning,) = config.warnings
    assert warning.startswith(f"{bad}: not included: cannot be trusted: ")
    assert warning.endswith(f"run `chmod go-w '{bad}'`")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.symlink_to("nowhere"), "the link leads to no existing file"),
        (Path.mkdir, "a directory"),
        (os.mkfifo, "a FIFO"),
        (lambda path: path.write_bytes(b"#" * (1 << 20) + b"#"), "larger than"),
    ],
)
def test_what_cannot_be_read_is_a_warning(
    load_text: Load, rules: Path, make: Callable[[Path], object], says: str
) -> None:
    """A file that cannot be read is a warning that names it; it blocks nothing, and the other files count."""
    make(rules / "a.conf")
    (rules / "b.conf").write_text(":b:M::B::/i:\n")
    config = load_text(f"{NONE}include = ['{rules}']")
    assert names(config) == ["b"]
    (warning,) = config.warnings
    assert warning.startswith(f"{rules}/a.conf: ")
    assert says in warning


def test_a_missing_directory(load_text: Load, tmp_path: Path) -> None:
    """A missing directory is a warning if a path names it; of systemd's directories most hosts lack some."""
    (warning,) = load_text(f"{NONE}include = ['{tmp_path}/gone']").warnings
    assert warning == f"include: directory {tmp_path}/gone does not exist: create it, or remove it from `include`"
    (tmp_path / "gone").write_text("")
    (warning,) = load_text(f"{NONE}include = ['{tmp_path}/gone']").warnings
    assert warning.startswith(f"{tmp_path}/gone: cannot be read: Not a directory: ")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("['binfmt']", "include[0]: 'binfmt' cannot be included (did you mean binfmt.d?): write \"binfmt.d\" for"),
        ("['binfmt.d', 'etc/rules']", "include[1]: 'etc/rules' cannot be included: write"),
        ("['/etc/\\u0000']", "include[0]: '/etc/\\x00' cannot be included"),
        ("'binfmt.d'", "include: 'binfmt.d' must be an array"),
        ("[1]", "include[0]: 1 must be a string"),
    ],
)
def test_anything_else_is_one_error(load_text: Load, config: Path, value: str, says: str) -> None:
    """Any other value is one error, which names file, key and remedy."""
    with pytest.raises(ConfigError) as caught:
        load_text(f"include = {value.replace(chr(39), chr(34))}")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{config}: {says}")


def test_what_changes_while_it_is_read_is_read_again(
    load_text: Load, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that change while they are read are read again, so two versions are never mixed.

    A package manager may be unpacking them.
    """
    (rules / "a.conf").write_text(":old:M::A::/i:\n")
    real = include.read
    reads: list[include.Included] = []

    def read_and_meddle(*arguments: object) -> include.Included:
        found = real(*arguments)  # type: ignore[arg-type]  # as it comes
        if not reads:
            (rules / "a.conf").write_text(":newer:M::A::/i:\n")
            (rules / "b.conf").write_text(":b:M::B::/i:\n")
        reads.append(found)
        return found

    monkeypatch.setattr(include, "read", read_and_meddle)
    assert names(load_text(f"{NONE}include = ['{rules}']")) == ["newer", "b"]
    assert len(reads) == 2


def test_what_never_holds_still_is_a_warning(load_text: Load, rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Included files that change without end are a warning, and their last content counts.

    They belong to other programs, so they are no reason to have no config.
    """
    passed = [0.0]
    monkeypatch.setattr(load_module, "monotonic", lambda: passed[0])
    monkeypatch.setattr(load_module, "sleep", lambda seconds: passed.__setitem__(0, passed[0] + seconds))
    real = include.look_for
    looks: list[object] = []

    def look_and_meddle(words: list[str]) -> object:
        looks.append(words)
        (rules / "a.conf").write_text(f":a:M::A::/i{'x' * len(looks)}:\n")
        return real(words)

    monkeypatch.setattr(include, "look_for", look_and_meddle)
    config = load_text(f"{NONE}include = ['{rules}']")
    assert names(config) == ["a"]
    (warning,) = config.warnings
    assert warning.startswith(f"{rules}/a.conf: still changes after 2 s")


def test_included_directories_are_watched(config: Path, rules: Path, systemd: tuple[Path, Path]) -> None:
    """Included directories are watched, also missing ones, and so are the targets of links in them."""
    (rules / "link.conf").symlink_to("../elsewhere/a.conf")
    (config.parent / "elsewhere").mkdir()
    systemd[1].rmdir()
    config.write_text(f"include = ['{rules}', 'binfmt.d', 'nonsense', 3]\nnot = 'valid'")
    found = watched(str(config))
    assert ANY_NAME in found[str(rules)]
    assert ANY_NAME in found[str(systemd[0])]
    assert {"lib", "rules", "etc"} <= found[str(config.parent)]
    assert "a.conf" in found[str(config.parent / "elsewhere")]


@pytest.mark.parametrize("text", ["include = 3", "include =", "x = '\u00e4'"])
def test_an_unreadable_config_is_watched_all_the_same(config: Path, text: str) -> None:
    """An invalid config is watched, too: an administrator may be about to correct it."""
    config.write_text(text, "latin-1")
    assert config.name in watched(str(config))[str(config.parent)]


def test_a_change_in_an_included_directory_makes_the_config_young(config: Path, rules: Path) -> None:
    """The config is as young as its included files, so a reload waits until they have been quiet for a while."""
    config.write_text(f"include = ['{rules}']")
    (rules / "a.conf").write_text("x")
    future = config.stat().st_mtime + 1000
    os.utime(rules / "a.conf", (future, future))
    assert age(str(config)) < 0
