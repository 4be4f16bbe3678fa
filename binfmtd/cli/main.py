"""Which command is meant; only that one's module is imported, so that each starts as fast as it can."""

import errno
import gc
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from binfmtd import __version__
from binfmtd.cli.table import help_width, width_of, wrapped
from binfmtd.daemon.signals import HELD
from binfmtd.errors import BinfmtdError, UsageError
from binfmtd.files.cure import cure
from binfmtd.report.printable import printable

COMMANDS = {
    "run": "the daemon: register what the config declares, and repair every drift",
    "apply": "one pass: register what the config declares, and end",
    "plan": "what apply would do; exit status 3 if there is something to do",
    "check": "whether the config is valid, and what of it this host cannot take",
    "status": "what the daemon has and lacks",
    "reload": "have the daemon read its config again, and wait until it is in force or rejected",
    "pause": "leave entries, or everything, as an admin makes them, until resumed or for a while",
    "resume": "end a pause: what drifted meanwhile is repaired",
    "wait": "wait until architectures are registered: for scripts, CI and init containers",
    "doctor": "one page about everything that decides whether foreign programs run here, with what to do",
    "probe": "whether the programs of an architecture run here, through what, and if not, why not",
    "explain": "why a file runs, or not: what the kernel would do with it, step by step",
    "arch": "the architectures: their names, their emulators here, what runs natively",
    "import": "what others declared or registered, as a config: from binfmt.d, Debian's format files or the kernel",
    "export": "what the config declares in others' formats: binfmt.d, Debian's format files, NixOS, a shell script",
    "sandbox": "a private binfmt_misc with a daemon in it, for one command, without privileges",
}

_MODULES = {"import": "import_"}  # where the command's name is a word of Python's


_WISHES = ("BINFMTD_ARCH", "BINFMTD_PERSISTENT")


# Modules of other projects, by the packages that pip has them in.
_PACKAGES = {
    "asyncore": "pyasyncore",
    "prometheus_client": "prometheus_client",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic",
    "pyinotify": "pyinotify",
    "structlog": "structlog",
    "typing_extensions": "typing_extensions",
}


def entry() -> None:
    """Run the command of this process's arguments, and exit."""
    start(main, held=sys.argv[1:2] == ["run"])


def start(command: Callable[[Sequence[str]], int], *, held: bool = False) -> NoReturn:
    """Make this process fit for a command, run it on this process's arguments, and exit with its status.

    ``held``: the command itself unblocks HELD, once it can answer these signals.  Until then the kernel keeps one that
    arrives.  The images block them already before Python starts, with `env --block-signal`.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    gc.disable()  # most commands end before there is any garbage; those that go on enable it
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # The kernel's names and paths are bytes, written here as UTF-8: under another locale we would look up others.
        os.execv(sys.executable, [sys.orig_argv[0], "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606  ourselves
    _open_standard_streams()
    if sys.warnoptions:  # $PYTHONWARNINGS: what Python says of other projects' modules is no matter for our users
        import warnings

        warnings.simplefilter("ignore")
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # which process 1 of a container would not even hear
        signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would take our children's status away
    if sys.stderr is not None:
        # Without a buffer: a message that nobody takes is lost, and does not wait for the interpreter's end, where it
        # would cost us our exit status.
        unbuffered = io.FileIO(sys.stderr.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(unbuffered, sys.stderr.encoding, sys.stderr.errors, line_buffering=True)
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # it was closed; print() would take the other one
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115  for as long as we run
    if not held:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    sys.exit(command(sys.argv[1:]))


def _open_standard_streams() -> None:
    """Open what is closed of the three: a file of ours that got such a number would be a stream of our children's."""
    with suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)  # noqa: FBT003  it has no name
        os.close(descriptor)


def _terminated(number: int, _frame: object) -> NoReturn:
    """Leave, but clean up on the way."""
    sys.exit(128 + number)


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit status is 0 done or in sync, 1 failed, 2 usage, 3 drift, 78 config."""
    try:
        return guarded(lambda: _dispatch(list(arguments)))
    except BinfmtdError as error:
        print("\n".join(wrapped(str(error), width_of(sys.stderr), "binfmtd: ", "  ")), file=sys.stderr)
        return error.exit_code


def guarded(command: Callable[[], int]) -> int:
    """The exit status of a command, also where this system gives it less than it needs: one line then says what.

    So is a file that cannot be used, a Python package that is missing, output that goes nowhere, and ^C.
    """
    try:
        try:
            return command()
        finally:  # argparse's --help leaves by SystemExit
            sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE:
            where = f"{printable(os.fsdecode(error.filename))}: " if error.filename else ""
            print(f"binfmtd: {where}{error.strerror}: {cure(error)}", file=sys.stderr)
        # No more output may come, not even at the interpreter's own end.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ImportError as error:
        if (package := _PACKAGES.get((error.name or "").partition(".")[0])) is None:
            raise
        from binfmtd.files.distribution import install_module

        why = "is missing" if isinstance(error, ModuleNotFoundError) else f"is of no use ({printable(str(error))})"
        print(f"binfmtd: the Python package {package} {why}: run `{install_module(package)}`", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments and any(os.environ.get(variable) for variable in _WISHES):
        arguments = ["apply"]  # said by environment alone, as in a container's
    first = arguments[0] if arguments else "--help"
    if first == "help" and arguments[1:]:
        return _dispatch([arguments[1], "--help"])
    if first in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if first in ("-V", "--version"):
        print(f"binfmtd {__version__}")
        return 0
    if first.startswith("-"):  # leading options without a command mean apply
        first, arguments = "apply", ["apply", *arguments]
    if first not in COMMANDS:
        from binfmtd.catalog.names import did_you_mean

        hint = did_you_mean(first, tuple(COMMANDS))
        raise UsageError(f"unknown command {first!r}: {hint or 'see binfmtd --help'}")
    status: int = importlib.import_module(module_of(first)).main(arguments[1:])
    return status


def module_of(command: str) -> str:
    """The name of the module that has a command."""
    return f"binfmtd.cli.{_MODULES.get(command, command)}"


def help_text() -> str:
    """What there is to do; no line is longer than the terminal's."""
    width, columns = max(map(len, COMMANDS)), help_width()
    lines = [
        "usage: binfmtd COMMAND [OPTION...]",
        "",
        "Keeps Linux's binfmt_misc in step with a declared set of handlers.",
        "",
        *(
            line
            for name, text in COMMANDS.items()
            for line in wrapped(text, columns, f"  {name:<{width}}  ", " " * (width + 4))
        ),
        "",
        *wrapped(
            "`binfmtd COMMAND --help` explains the options; options or variables without a command mean apply.", columns
        ),
    ]
    return "\n".join(lines)
