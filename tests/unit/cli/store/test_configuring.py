"""Settings as `configure` reads them, and emulators that are tried with them."""

from pathlib import Path

import pytest
from support.programs import exits_with, install
from support.tiny_emulators import tiny_emulator

from binfmtd.cli.store.configuring import check_runs, parse_settings, write_with_settings
from binfmtd.errors import StoreError, UsageError
from binfmtd.host.emulator_settings import in_words, settings_in


def test_settings() -> None:
    """A value may be empty, and contain an equals sign."""
    assert parse_settings(["QEMU_CPU=rv64,v=true", "A="]) == {"QEMU_CPU": "rv64,v=true", "A": ""}


@pytest.mark.parametrize("words", [["A"], ["=1"], ["A=1", "A=1"], ["a=1"], ["LD_LIBRARY_PATH=/x"], ["A=\0"]])
def test_no_settings(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_settings(words)


def test_in_words() -> None:
    """Settings are printed as a shell takes them."""
    assert in_words({"QEMU_CPU": "max,-avx512f", "A": "x y", "B": ""}) == "QEMU_CPU=max,-avx512f A='x y' B=''"
    assert in_words({}) == ""


def test_a_copy(tmp_path: Path) -> None:
    """A copy has the settings, and is never written over a file; what cannot carry settings is named."""
    source = install(tmp_path / "qemu-arm", tiny_emulator("9.2.2"))
    write_with_settings(str(source), str(tmp_path / "new"), {"A": "1"})
    assert settings_in(str(tmp_path / "new")) == {"A": "1"}
    assert settings_in(str(source)) == {}
    with pytest.raises(FileExistsError):
        write_with_settings(str(source), str(tmp_path / "new"), {"A": "1"})
    install(source, b"#!/bin/sh\n")
    with pytest.raises(StoreError, match=f"{source} cannot carry settings: it is not an ELF program: leave it out"):
        write_with_settings(str(source), str(tmp_path / "other"), {"A": "1"})
    assert not (tmp_path / "other").exists()


def test_no_settings_in(tmp_path: Path) -> None:
    """A file that is no readable program has no settings."""
    (tmp_path / "text").write_text("text")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "text", "/dev/null", "a\0b"):
        assert settings_in(str(path)) == {}


def test_a_trial(tmp_path: Path) -> None:
    """Only an emulator that runs no program, while the one without settings runs it, is refused, with the reason."""
    good = str(install(tmp_path / "good", exits_with(42)))
    silent = str(install(tmp_path / "silent", exits_with(1)))
    speaks = str(install(tmp_path / "speaks", tiny_emulator("9.2.2")))
    for emulator, without in ((good, silent), (silent, silent), (good, good)):
        check_runs("arm", emulator, without, {"A": "1"}, str(tmp_path))
    check_runs("no-architecture", silent, good, {"A": "1"}, str(tmp_path))
    with pytest.raises(StoreError, match="qemu-arm runs no program with these settings: it exited with status 1: "):
        check_runs("arm", silent, good, {"A": "1"}, str(tmp_path))
    with pytest.raises(StoreError, match=r"qemu-arm runs no program .*: qemu-any version 9\.2\.2: correct them"):
        check_runs("arm", speaks, good, {"A": "1"}, str(tmp_path))
