"""The log, as a terminal, a journal or a collector gets it."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from binfmtd.files.environment import in_container
from binfmtd.report.log import get_logger, set_up


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged(log_format: str = "logfmt", level: str = "info", stream: io.StringIO | None = None) -> str:
    out = stream or io.StringIO()
    set_up(level, log_format, out)
    get_logger().info("entry_registered", entry="a\nb", names=["x", "l\udce4t"], took_ms=43.1, ok=True, reason=None)
    return out.getvalue()


def test_logfmt_is_one_line_of_keys() -> None:
    """A line has time, level and event first, durations with their unit, and escapes for what could break it."""
    line = logged()
    time, rest = line.split(" ", 1)
    assert time.startswith("timestamp=20")
    assert time.endswith("Z")
    assert rest.startswith("level=info event=entry_registered ")
    assert set(rest.split()) >= {"took=43ms", "ok=true"}
    assert line.count("\n") == 1
    assert line.isascii()
    assert "l\\xe4t" in line or "l\\\\xe4t" in line


def test_json_is_one_object_a_line() -> None:
    """For a collector of logs values are unchanged, and so are names that are not UTF-8."""
    line = logged("json")
    found = json.loads(line)
    assert (found["event"], found["level"], found["entry"], found["took_ms"]) == (
        "entry_registered",
        "info",
        "a\nb",
        43.1,
    )
    assert found["names"] == ["x", "l\udce4t"]
    assert line.count("\n") == 1
    assert line.isascii()


def test_the_console_is_not_steered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name cannot move the cursor; without colours no escape sequence reaches the terminal at all."""
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    set_up("info", "console", out)
    get_logger().warning("drift_found", entry="\x1b[2Jx", names={"\x1by"})
    assert "\x1b" not in out.getvalue()
    assert "\\x1b[2Jx" in out.getvalue()


def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove all signs of a container, since the tests may run in one."""
    monkeypatch.setattr("binfmtd.files.environment._CONTAINER_FILES", ())
    for variable in ("container", "KUBERNETES_SERVICE_HOST", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("stream", "container", "begins"),
    [
        (Terminal, False, "\x1b[2m20"),  # the console's own form
        (Terminal, True, "\x1b[2m20"),
        (io.StringIO, False, "timestamp="),
        (io.StringIO, True, "{"),
    ],
)
def test_auto_fits_who_reads(
    monkeypatch: pytest.MonkeyPatch, stream: Callable[[], io.StringIO], *, container: bool, begins: str
) -> None:
    """The format `auto` depends on the stream being a terminal, and on being in a container."""
    outside(monkeypatch)
    monkeypatch.setenv("TERM", "xterm")
    if container:
        monkeypatch.setenv("container", "podman")
    assert logged("auto", stream=stream()).startswith(begins)


def test_how_a_container_is_recognised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container is recognised by a variable, by a file in the root, or by our being process 1."""
    outside(monkeypatch)
    assert not in_container()
    with monkeypatch.context() as inside:
        inside.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        assert in_container()
    with monkeypatch.context() as inside:
        inside.setattr("binfmtd.files.environment._CONTAINER_FILES", (str(tmp_path),))
        assert in_container()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert in_container()


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours need a terminal, even if the format is named, that is not dumb, and no $NO_COLOR, unless empty."""
    outside(monkeypatch)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b" in logged("console", stream=Terminal())
    assert "\x1b" not in logged("console", stream=io.StringIO())
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b" in logged("console", stream=Terminal())
    monkeypatch.setenv("NO_COLOR", "0")
    assert "\x1b" not in logged("console", stream=Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in logged("console", stream=Terminal())


def test_the_level_is_a_threshold() -> None:
    """Below the level nothing is written, and from it on everything."""
    assert logged(level="warning") == ""
    assert logged(level="debug") != ""


@pytest.mark.parametrize(("method", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)])
def test_under_the_journal_a_line_begins_with_its_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, priority: int
) -> None:
    """Under the journal a line begins as in sd-daemon(3), without a time, since the journal has its own."""
    with (tmp_path / "journal").open("w+") as out:
        found = os.fstat(out.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        set_up("debug", "auto", out)
        getattr(get_logger(), method)("pass_finished", took_ms=1)
        out.seek(0)
        assert out.read().startswith(f"<{priority}>level={method} event=pass_finished took=1ms")


def test_another_files_journal_stream_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If stderr is redirected, $JOURNAL_STREAM names another file, and does not count."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    with (tmp_path / "file").open("w+") as out:
        set_up("info", "logfmt", out)
        get_logger().info("pass_finished")
        out.seek(0)
        assert out.read().startswith("timestamp=")


def test_without_a_stream_it_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a stream the log goes to stderr, so it never mixes with results on stdout."""
    set_up("info", "logfmt")
    assert sys.stderr is not None
    get_logger().info("pass_finished")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pass_finished" in captured.err
