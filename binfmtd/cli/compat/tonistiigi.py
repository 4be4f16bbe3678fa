"""tonistiigi/binfmt: the image that docker/setup-qemu-action and many scripts run.

It uninstalls, then installs, then prints one JSON document, the only output on stdout.  It prints the document even if
an earlier step failed, but not with ``--version`` or ``-h``, nor after a usage error.
"""

from collections.abc import Sequence

from binfmtd.cli.compat import goflags
from binfmtd.cli.compat.goflags import Flag
from binfmtd.cli.compat.main import log, log_error
from binfmtd.errors import BinfmtdError, UsageError

FLAGS = (
    Flag("install", "platforms to install, separated by commas; all: those that have an emulator here and do not run"),
    Flag("mount", "mount point of binfmt_misc, which is mounted there if necessary", "/proc/sys/fs/binfmt_misc"),
    Flag("strict", "exit with 1 if a platform cannot be installed", default=False),
    Flag("uninstall", "platforms, or names of entries, to remove, separated by commas; globs are allowed"),
    Flag("version", "print the version on stderr, and nothing else", default=False),
)


def main(arguments: Sequence[str]) -> int:
    """Return the exit status; raises UsageError.

    It is 1 if nothing could be done at all, if the document is incomplete, or with ``--strict`` if a platform could not
    be installed; else 0.
    """
    given = goflags.parse(arguments, "binfmt", FLAGS)
    if given.switches.get("version"):
        from binfmtd.cli.compat.version import version

        log(version())
        return 0
    from binfmtd.cli.compat.environment import where
    from binfmtd.cli.compat.status import document

    there = where(given.texts.get("mount"))
    uninstall, install = given.texts.get("uninstall", ""), given.texts.get("install", "")
    failures: list[str] = []
    problem: BinfmtdError | None = None
    try:
        if uninstall or install:
            from binfmtd.cli.compat.change import change

            failures = change(uninstall, install, there)
        else:
            from binfmtd.kernel.mount import find_or_mount

            find_or_mount(there)
    except UsageError:
        raise
    except BinfmtdError as error:
        problem = error
    text, unknown = document(there)
    print(text)
    if problem := problem or unknown:
        log_error(problem)
        return 1
    if failures and given.switches.get("strict"):
        more = f" (and {len(failures) - 1} more)" if failures[1:] else ""
        log(f"error: {failures[0]}{more}")
        return 1
    return 0
