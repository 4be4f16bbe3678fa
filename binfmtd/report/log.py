"""The log: structlog to stderr.

Events are constant words, everything variable is a key.  On a terminal the log is coloured.  Under the journal a line
begins with its priority in angle brackets (sd-daemon(3)).  In a container, where programs collect it, it is JSON.
"""

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any, TextIO

from binfmtd.files.environment import in_container
from binfmtd.report.colour import takes_colours
from binfmtd.report.durations import duration
from binfmtd.report.late_module import import_late
from binfmtd.report.log_queue import LogQueue
from binfmtd.report.printable import printable

# From Python 3.12 on, logging asks asyncio for the name of a task with each record.  Before, it has no such setting.
vars(logging)["logAsyncioTasks"] = False
import_late("asyncio", "uuid")
import structlog  # noqa: E402  after these

Logger = structlog.typing.FilteringBoundLogger

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

_Event = MutableMapping[str, Any]


def set_up(level: str = "info", log_format: str = "auto", stream: TextIO | None = None) -> None:
    """Make ``structlog.get_logger()`` write to ``stream``, by default stderr."""
    out = stream or sys.stderr
    _configure(level, log_format, out, _writer(out))


def set_up_queue(level: str, log_format: str) -> LogQueue:
    """Make ``structlog.get_logger()`` put lines into a queue, which a thread writes to stderr; return the queue."""
    queue = LogQueue(sys.stderr.fileno(), _lines_dropped)
    _configure(level, log_format, sys.stderr, queue.put)
    return queue


def _configure(level: str, log_format: str, out: TextIO, write: Callable[[str], None]) -> None:
    journal = _is_journal(out)
    if log_format == "auto":
        log_format = "console" if out.isatty() else "json" if in_container() and not journal else "logfmt"
    processors: list[Any] = [structlog.processors.add_log_level]
    if not journal:
        processors.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    if log_format == "json":
        processors.append(structlog.processors.JSONRenderer())  # escapes by itself
    elif log_format == "console":
        processors += [_escape, structlog.dev.ConsoleRenderer(colors=takes_colours(out))]
    else:
        order = ["timestamp", "level", "event"]
        processors += [
            _escape,
            structlog.processors.LogfmtRenderer(key_order=order, drop_missing=True, bool_as_flag=False),
        ]
        if journal:
            processors.append(_put_priority)
    lines = _Lines(write)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )


class _Lines:
    """structlog's output: one function for all levels."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.msg = write


def _writer(out: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        with suppress(OSError, ValueError):  # the reader may have ended, or its disk may be full
            out.write(f"{line}\n")
            out.flush()

    return write


def _lines_dropped(lines: int) -> None:
    reason = "the log's reader was not reading or had ended, or the disk was full"
    get_logger().warning("log_lines_dropped", lines=lines, reason=reason)


def get_logger() -> Logger:
    """Return the logger that ``set_up`` or ``set_up_queue`` has configured."""
    logger: Logger = structlog.get_logger()
    return logger


def _escape(_logger: object, _method: str, event: _Event) -> _Event:
    """Make the values readable: escape text that steers a terminal, join lists, give durations their unit."""
    for key, value in list(event.items()):
        if isinstance(value, str):
            event[key] = printable(value)
        elif isinstance(value, (list, tuple, set, frozenset)):
            event[key] = printable(",".join(str(item) for item in value))
        elif key.endswith("_ms"):
            event[key.removesuffix("_ms")] = duration(event.pop(key) / 1e3).replace(" ", "")
    return event


def _put_priority(_logger: object, method: str, line: str) -> str:
    return f"<{_PRIORITIES.get(method, 6)}>{line}"


def _is_journal(out: TextIO) -> bool:
    """Return True if ``out`` is the socket of the journal, which is in $JOURNAL_STREAM (systemd.exec(5))."""
    try:
        status = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
