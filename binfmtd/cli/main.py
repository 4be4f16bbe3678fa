"""The entry point: prepare the process, find the command, and run it.

Only the module of that command is imported, so that each command starts as fast as it can.
"""

import errno
import gc
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from binfmtd import __version__
from binfmtd.cli.table import help_width, width_of, wrapped
from binfmtd.daemon.signals import HELD
from binfmtd.errors import BinfmtdError, FormatError, UsageError
from binfmtd.files.cure import cure
from binfmtd.report.printable import printable

COMMANDS = {
    "run": "run the daemon, which registers the handlers of the config and repairs what other programs change",
    "apply": "apply the config once, without a daemon: register, replace or remove entries",
    "plan": "print what `apply` would do; exit status 3 if it would change anything",
    "check": "validate the config, and list what this host cannot register",
    "status": "show the daemon's state and its handlers",
    "reload": "make the daemon read its config again, and wait until the new one is in force or rejected",
    "pause": "stop repairing some or all entries, until `resume` or a time limit",
    "resume": "end a pause; the daemon then repairs what drifted meanwhile",
    "wait": "wait until programs of the given architectures can run: for scripts, CI and init containers",
    "doctor": "check everything that decides whether foreign programs run here, and print what to do",
    "probe": "run a tiny program of each architecture, and print which entry runs it, or why it does not run",
    "explain": "print why a file runs or does not run: what the kernel would do with it, step by step",
    "arch": "list the architectures: their names, their emulators on this host, and which run natively",
    "import": "convert existing registrations into a config: from binfmt.d, Debian's format files or the kernel",
    "export": "write the config's handlers in another format: binfmt.d, Debian's format files, NixOS or a shell script",
    "emulators": "keep versions of the emulators in a store: pull them from images, import, export, verify and remove "
    "them",
    "sandbox": "run one command with a private binfmt_misc and a daemon of its own, without privileges",
}

_MODULES = {"import": "import_"}  # commands whose names are keywords of Python


# Module of another project -> the package that pip installs it from.
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
    """Run the command that this process's arguments name, and exit."""
    start(main, held=sys.argv[1:2] == ["run"])


def start(command: Callable[[Sequence[str]], int], *, held: bool = False) -> NoReturn:
    """Prepare this process, run a command on its arguments, and exit with the command's status.

    ``held``: the command itself unblocks HELD, once it can handle these signals.  Until then the kernel keeps one that
    arrives.  The images block them already before Python starts, with `env --block-signal`.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    gc.disable()  # most commands end before there is any garbage; those that run on enable it
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # The kernel's names and paths are bytes, encoded here as UTF-8: another locale would give other bytes.
        os.execv(sys.executable, [sys.orig_argv[0], "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606  ourselves
    _open_standard_streams()
    if sys.warnoptions:  # $PYTHONWARNINGS: warnings about other projects' modules do not concern our users
        import warnings

        warnings.simplefilter("ignore")
    for number in (signal.SIGTERM, signal.SIGHUP):  # the kernel keeps an unhandled one from process 1 of a container
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, exit_on_signal)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if ignored, the kernel discards our children's exit status
    if sys.stderr is not None:
        # Without a buffer: a message that cannot be written is lost at once.  In a buffer it would wait for the
        # interpreter's end, where its failure would replace our exit status.
        unbuffered = _Messages(sys.stderr.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(unbuffered, sys.stderr.encoding, sys.stderr.errors, line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper):  # $PYTHONIOENCODING may ask for another encoding than UTF-8
        before = sys.stdout
        output = _Output(before.fileno(), "w", closefd=False)
        through = before.write_through  # $PYTHONUNBUFFERED
        binary = output if through else io.BufferedWriter(output)
        sys.stdout = io.TextIOWrapper(
            binary, "utf-8", before.errors, line_buffering=before.line_buffering, write_through=through
        )
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # it was closed; print(file=None) would write to stdout
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115  for as long as we run
    if not held:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    sys.exit(command(sys.argv[1:]))


class _Output(io.FileIO):
    """Stdout.  The error of a write that fails names it, as the error of another file has the file's name."""

    def write(self, text: Any, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            error.filename = "standard output"
            raise


class _Messages(io.FileIO):
    """Stderr.  A write that fails, as on a full disk, changes neither the command's work nor its exit status."""

    def write(self, message: Any, /) -> int:
        try:
            return super().write(message)
        except OSError:
            return len(message)


def _open_standard_streams() -> None:
    """Open /dev/null for each of the three that is closed.

    Otherwise a file of ours could get its number, and would be a standard stream of our child processes.
    """
    with suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)  # noqa: FBT003  the parameter has no name
        os.close(descriptor)


def exit_on_signal(number: int, _frame: object) -> NoReturn:
    """Exit with 128 and the signal's number; SystemExit runs the cleanup code."""
    sys.exit(128 + number)


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit status: 0 done or in sync, 1 failed, 2 usage, 3 drift, 78 config."""
    try:
        return guarded(lambda: _dispatch(list(arguments)))
    except BinfmtdError as error:
        print("\n".join(wrapped(str(error), width_of(sys.stderr), "binfmtd: ", "  ")), file=sys.stderr)
        return error.exit_code


def guarded(command: Callable[[], int]) -> int:
    """Run a command and return its exit status, also where this system lacks what it needs.

    One line on stderr then names the file that cannot be used, or the Python package that is missing, and the status is
    1.  It is also 1, without a line, if the reader of the output has exited.  ^C gives 130.
    """
    try:
        try:
            return command()
        finally:  # also after argparse's --help, which raises SystemExit
            sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE:
            where = f"{printable(os.fsdecode(error.filename))}: " if error.filename else ""
            print(f"binfmtd: {where}{error.strerror}: {cure(error)}", file=sys.stderr)
        # Nothing more may be written there, not even when the interpreter flushes stdout at its end.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ImportError as error:
        if (package := _PACKAGES.get((error.name or "").partition(".")[0])) is None:
            raise
        from binfmtd.files.distribution import install_module

        why = "is missing" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({printable(str(error))})"
        print(f"binfmtd: the Python package {package} {why}: run `{install_module(package)}`", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments and _is_wished():
        arguments = ["apply"]
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
        raise UsageError(f"unknown command {first!r}: {_hint(first)}")
    status: int = importlib.import_module(module_of(first)).main(arguments[1:])
    return status


def _is_wished() -> bool:
    """Return True if the environment alone asks for handlers, as in a container."""
    if os.environ.get("BINFMTD_ARCH", "").strip():
        return True
    if not os.environ.get("BINFMTD_PERSISTENT"):
        return False
    from binfmtd.cli.options import switch

    return switch("BINFMTD_PERSISTENT")


def _hint(word: str) -> str:
    """Return what a word may mean that is no command."""
    from binfmtd.catalog.names import did_you_mean, find
    from binfmtd.cli.options import ALL

    if word == "binfmtd":
        return "write the command alone, since an image's entrypoint is `binfmtd` already"
    with suppress(FormatError):
        if word != ALL:
            find(word.partition(",")[0])
        return f"to register architectures, write `binfmtd apply --arch {word}`"
    return did_you_mean(word, tuple(COMMANDS)) or "see binfmtd --help"


def module_of(command: str) -> str:
    """Return the name of the module that implements a command."""
    return f"binfmtd.cli.commands.{_MODULES.get(command, command)}"


def help_text() -> str:
    """Return the text of ``binfmtd --help``, wrapped to ``help_width`` columns."""
    width, columns = max(map(len, COMMANDS)), help_width()
    lines = [
        "usage: binfmtd COMMAND [OPTION...]",
        "",
        "Registers the handlers of its config in Linux's binfmt_misc, and keeps them.",
        "",
        *(
            line
            for name, text in COMMANDS.items()
            for line in wrapped(text, columns, f"  {name:<{width}}  ", " " * (width + 4))
        ),
        "",
        *wrapped(
            "`binfmtd COMMAND --help` explains the options. Without a command, options, $BINFMTD_ARCH or "
            "$BINFMTD_PERSISTENT mean `apply`.",
            columns,
        ),
    ]
    return "\n".join(lines)
