"""The files of the config, the time of their last change, and the paths to watch."""

import os
from pathlib import Path

import pytest

from binfmtd.config.source import age, look_for, watched
from binfmtd.files.paths import ANY_NAME


def put(path: Path, seconds_ago: float) -> None:
    """Write a file that is as old; its ctime stays now, so an age can only come out younger."""
    path.write_text("")
    then = path.stat().st_mtime - seconds_ago
    os.utime(path, (then, then))


def test_the_youngest_file_counts(config: Path) -> None:
    """A file in conf.d that was just written makes the whole config young."""
    put(config, 3600)
    (config.parent / "conf.d").mkdir()
    put(config.parent / "conf.d" / "a.toml", 3600)
    assert 0 <= age(str(config)) < 60


def test_a_named_file_that_is_not_there_has_an_age_all_the_same(tmp_path: Path) -> None:
    """A missing config has an age, without an error; the reload reports what is missing."""
    assert age(str(tmp_path / "gone" / "binfmtd.toml")) >= 0


def test_where_no_file_is_its_directory_counts(tmp_path: Path) -> None:
    """A missing config is as young as its directory: an editor may just have moved the file away."""
    newest = look_for(None, str(tmp_path / "binfmtd.toml")).newest
    assert newest == pytest.approx(max(tmp_path.stat().st_mtime, tmp_path.stat().st_ctime), abs=0.001)


def test_links_and_conf_d_are_watched(tmp_path: Path) -> None:
    """Each link on the way is watched, the file at its end, and every name in conf.d."""
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "c.toml").write_text("")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "binfmtd.toml").symlink_to("..data/c.toml")
    (tmp_path / "conf.d").mkdir()
    found = watched(str(tmp_path / "binfmtd.toml"))
    assert found[str(tmp_path)] >= {"binfmtd.toml", "..data", "conf.d"}
    assert found[str(tmp_path / "..1")] >= {"c.toml"}
    assert ANY_NAME in found[str(tmp_path / "conf.d")]
