import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from binfmtd.config import load as load_module
from binfmtd.config.load import load
from binfmtd.errors import ConfigError
from binfmtd.files.atomic import MEBIBYTE, read_regular
from binfmtd.files.trust import Trust
from binfmtd.model.config import Config

Load = Callable[..., Config]

ME = Trust(os.geteuid())
ONE = "architectures = ['arm64']"


def refused(path: Path | None, *, default: Path | None = None, trust: Trust = ME) -> str:
    with pytest.raises(ConfigError) as caught:
        load(
            None if path is None else str(path),
            trust=trust,
            default=str(default or "/nonexistent/binfmtd.toml"),
        )
    message = str(caught.value)
    assert "\n" not in message
    return message


def architectures(config: Config) -> list[str | None]:
    return [spec.architecture for spec in config.specs]


def test_no_config_file_is_a_config(tmp_path: Path) -> None:
    """The default config file and its directory may be absent: that means "all"."""
    for default in (tmp_path / "binfmtd.toml", tmp_path / "missing" / "binfmtd.toml"):
        loaded = load(None, trust=ME, default=str(default))
        assert loaded.sources == ()
        assert len(loaded.specs) > 30
        assert {spec.source for spec in loaded.specs} == {'"all" (default, no config file)'}


def test_conf_d_counts_without_a_config_file(tmp_path: Path) -> None:
    """conf.d is read without a config file: a package can bring its part before an administrator writes anything."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.toml").write_text(ONE)
    loaded = load(None, trust=ME, default=str(tmp_path / "binfmtd.toml"))
    assert (architectures(loaded), loaded.sources) == (["aarch64"], (str(tmp_path / "conf.d" / "a.toml"),))


def test_only_visible_toml_files_of_conf_d_are_read(load_text: Load, config: Path) -> None:
    """Backups, editors' locks and other files in conf.d are not read."""
    (config.parent / "conf.d").mkdir()
    for name in ("a.toml~", ".hidden.toml", "readme", "a.toml.dpkg-old"):
        (config.parent / "conf.d" / name).write_text("no toml")
    (config.parent / "conf.d" / ".#lock.toml").symlink_to("nowhere")
    assert load_text(ONE).sources == (str(config),)


def test_a_relative_path_is_shown_whole(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is shown as an absolute one: the log does not show the working directory."""
    config.write_text(ONE)
    monkeypatch.chdir(config.parent)
    assert load(config.name, trust=ME).sources == (str(config),)


def test_a_named_file_must_be_there(config: Path) -> None:
    """A config file that is named and missing is an error: it does not mean "all"."""
    message = refused(config)
    assert message == f"{config}: cannot be read: No such file or directory: create it, or name another"


def test_a_link_to_nowhere_is_no_absent_file(config: Path) -> None:
    """A dangling link at the default path is an error, and does not mean "all"."""
    config.symlink_to("nowhere")
    assert "the link leads to no existing file: correct or remove it" in refused(None, default=config)


@pytest.mark.parametrize("where", ["main", "conf.d"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is a FIFO: put a regular file there"),
        (lambda path: path.mkdir(), "is a directory: put a regular file there"),
        (lambda path: path.write_bytes(b"#" * (MEBIBYTE + 1)), "larger than 1048576 bytes"),
        (lambda path: path.write_bytes(b"keep = []\n# \xff\n"), "line 2 is not UTF-8"),
        (lambda path: path.symlink_to("nowhere"), "the link leads to no existing file: correct or remove it"),
        (
            lambda path: path.symlink_to(path.name),
            f"{os.strerror(errno.ELOOP)}: the link leads back to itself: correct or remove it",
        ),
    ],
)
def test_what_cannot_be_a_config_is_one_error(
    config: Path, where: str, make: Callable[[Path], object], said: str
) -> None:
    """A file that cannot be a config is one error that names it; a FIFO does not block, a directory is no traceback."""
    path = config
    if where == "conf.d":
        config.write_text(ONE)
        path = config.parent / "conf.d" / "a.toml"
        path.parent.mkdir()
    make(path)
    message = refused(config)
    assert message.startswith(f"{path}: ")
    assert said in message


def test_a_byte_order_mark(config: Path) -> None:
    """A file that an editor on Windows began with a byte order mark is read like any other."""
    config.write_text(ONE, "utf-8-sig")
    assert architectures(load(str(config), trust=ME)) == ["aarch64"]


def test_conf_d_must_be_a_directory(config: Path) -> None:
    """A file with the name conf.d is an error that names it."""
    config.write_text(ONE)
    (config.parent / "conf.d").write_text("")
    assert refused(config).startswith(f"{config.parent}/conf.d: cannot be read: Not a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_not_taken_for_absent(config: Path) -> None:
    """A config that may not be read is an error: for an ordinary user root's closed directory does not mean "all"."""
    (config.parent / "closed").mkdir(mode=0)
    assert "Permission denied" in refused(None, default=config.parent / "closed" / "binfmtd.toml")
    config.write_text(ONE)
    config.chmod(0)
    assert refused(config).startswith(f"{config}: cannot be read: Permission denied: ")


@pytest.mark.parametrize("which", ["binfmtd.toml", "conf.d", "conf.d/a.toml"])
def test_what_others_can_write_is_refused(config: Path, which: str) -> None:
    """A file or conf.d that another user can write is refused by its path, before any content is read."""
    config.write_text("not toml")
    (config.parent / "conf.d").mkdir()
    (config.parent / "conf.d" / "a.toml").write_text("not toml")
    (config.parent / which).chmod(0o777)
    message = refused(config)
    assert "cannot be trusted" in message
    assert f"chmod go-w '{config.parent / which}'" in message


def test_an_empty_conf_d_that_others_can_write_is_refused(config: Path) -> None:
    """An empty conf.d that another user can write is refused: a file in it would decide what runs here."""
    config.write_text(ONE)
    (config.parent / "conf.d").mkdir()
    (config.parent / "conf.d").chmod(0o777)
    assert "cannot be trusted" in refused(config)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_config_is_refused(config: Path) -> None:
    """Another user's config is refused, since its owner could change it at any time."""
    config.write_text(ONE)
    os.chown(config, 1000, 1000)
    assert f"'{config}' (owner 1000, mode 0644) belongs to another user" in refused(config, trust=Trust(0))


class Clock:
    """A clock that advances only in naps, each of which may change the files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, during: Callable[[int], object]) -> None:
        self.passed, self.naps, self.during = 0.0, 0, during
        monkeypatch.setattr(load_module, "monotonic", lambda: self.passed)
        monkeypatch.setattr(load_module, "sleep", self.nap)

    def nap(self, seconds: float) -> None:
        self.passed += seconds
        self.naps += 1
        assert self.naps < 1000, "hangs"
        self.during(self.naps)


def test_what_changes_while_it_is_read_is_read_again(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that change while they are read are read again, so two versions are never mixed."""
    config.write_text("architectures = ['arm']\n# old")
    (config.parent / "conf.d").mkdir()
    (config.parent / "conf.d" / "a.toml").write_text("resync = '1m'")
    reads: list[str] = []

    def read_and_meddle(path: str, **judged: Any) -> bytes:
        data = read_regular(path, **judged)
        if not reads:
            config.write_text(ONE)
            (config.parent / "conf.d" / "b.toml").write_text("resync = '2m'")
        reads.append(path)
        return data

    monkeypatch.setattr(load_module, "read_regular", read_and_meddle)
    loaded = load(str(config), trust=ME)
    assert (architectures(loaded), loaded.policy.resync) == (["aarch64"], 120.0)
    assert reads.count(str(config)) == 2


def test_what_was_judged_is_what_is_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config whose link is turned elsewhere between the look and the open, and back, is refused."""
    good, evil = config.parent / "good", config.parent / "evil"
    good.write_text(ONE)
    evil.write_text("architectures = ['riscv64']")
    config.symlink_to(good)

    def turn(target: Path) -> None:
        config.unlink()
        config.symlink_to(target)

    def exchanged(path: str, **judged: Any) -> bytes:
        turn(evil)
        try:
            return read_regular(path, **judged)
        finally:
            turn(good)

    monkeypatch.setattr(load_module, "read_regular", exchanged)
    assert "was replaced while it was read" in refused(config)


def test_a_file_that_vanishes_while_it_is_read_is_no_error_if_it_comes_back(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error counts only if no file changed meanwhile."""
    config.write_text(ONE)
    Clock(monkeypatch, lambda nap: nap == 1 and config.write_text(ONE))
    calls = 0

    def vanishing(path: str, **judged: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 1:
            config.unlink()
        return read_regular(path, **judged)

    monkeypatch.setattr(load_module, "read_regular", vanishing)
    assert architectures(load(str(config), trust=ME)) == ["aarch64"]


def test_a_file_that_never_holds_still_is_an_error(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that still changes after two seconds is an error, and the message names the right way to write it."""
    config.write_text(ONE)
    clock = Clock(monkeypatch, lambda _nap: None)

    def read_and_meddle(path: str, **judged: Any) -> bytes:
        data = read_regular(path, **judged)
        config.write_text(f"{ONE} # {'x' * clock.naps}")
        return data

    monkeypatch.setattr(load_module, "read_regular", read_and_meddle)
    message = refused(config)
    assert message.startswith(f"{config}: still changes after 2 s: write a temporary file and rename it")
    assert 2.0 <= clock.passed < 2.1


def test_importing_is_light() -> None:
    """Importing the loader does not import pydantic, which takes longer than all the rest; the first load does."""
    code = "import sys, binfmtd.config.load; sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_search_for_plugins() -> None:
    """pydantic does not import what it looks for plugins with, and its own loader is imported by later users."""
    absent = "{'importlib.metadata', 'email.message', 'pydantic.plugin._loader'}.isdisjoint(sys.modules)"
    later = "pydantic.TypeAdapter(int).validate_python(1), 'importlib.metadata' in sys.modules"
    code = f"import pydantic, sys, binfmtd.config.schema; print({absent}, {later})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "True 1 True\n"
