"""``binfmtd wait``: wait until architectures are registered, for scripts, CI and init containers.

The command reads binfmt_misc itself, so it needs neither a daemon nor its state directory; inotify and the mount table
wake it.  While it waits it prints to stderr what is missing: once, and again when that has changed.
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial

from binfmtd.catalog.architecture import Architecture
from binfmtd.catalog.names import find as find_architecture
from binfmtd.catalog.program import tiny_program
from binfmtd.cli import options
from binfmtd.cli.context import not_mounted
from binfmtd.cli.output import warn
from binfmtd.cli.state import state_dir_or_none
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.daemon.watches.mount_watcher import MountWatcher
from binfmtd.errors import FormatError, MountError, UsageError
from binfmtd.host.interpreters import cannot_run
from binfmtd.kernel.instance import Instance, Observer
from binfmtd.kernel.mount import Mounted, Where
from binfmtd.model.entry import ObservedState
from binfmtd.model.match import takes

DEFAULT_TIMEOUT = "60s"
_LONGEST_SLEEP = 60.0  # seconds between two looks where inotify reports changes


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd wait``."""
    command = options.parser("wait")
    command.add_argument("names", metavar="ARCH", nargs="+", help="an architecture (any alias)")
    command.add_argument(
        "--timeout",
        metavar="DURATION",
        type=options.with_unit,
        default=DEFAULT_TIMEOUT,
        help=f"give up after this time: seconds, or with units like 1m30s ({DEFAULT_TIMEOUT})",
    )
    options.add_config(command)  # every command accepts it; this one ignores it
    options.add_mount(command)
    options.add_state_dir(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0 once all architectures run; 1 after the timeout, when what is missing is printed."""
    given = parser().parse_args(arguments)
    try:
        wanted = [find_architecture(name) for name in given.names]
    except FormatError as error:
        raise UsageError(str(error)) from None
    deadline = time.monotonic() + options.duration(given.timeout, "--timeout", DEFAULT_TIMEOUT)
    facts = HostFacts(state_dir_or_none(given), writes=False)
    problem = wait(wanted, given.mount, facts, deadline, partial(not_mounted, given))
    if problem is None:
        return 0
    warn(f"timed out after {given.timeout}: {problem}")
    return 1


def wait(
    wanted: list[Architecture],
    directory: str | None,
    facts: HostFacts,
    deadline: float,
    unmounted: Callable[[str], str],
) -> str | None:
    """Wait until each architecture runs, and return None; at the deadline (monotonic, in seconds) what is missing.

    ``unmounted`` returns the text for a directory where no process has binfmt_misc mounted.
    """
    from binfmtd.daemon.poller import Poller
    from binfmtd.daemon.watches.inotify import InotifyWatcher
    from binfmtd.host.native import find_native

    gc.enable()
    watch, mounts = InotifyWatcher(), MountWatcher()
    waiting = Poller(mounts.descriptor)
    instance_watch = InstanceWatch(Where(directory, autoload=False), watch, waiting)
    observer = Observer()
    # Not ``facts``, which would keep this answer: once the entries can be read, it may be a better one.
    natively = cache(partial(find_native, None))
    reported = ours_alone = None
    while True:
        try:
            instance_watch.begin()
            mounted = _attach(instance_watch)
            if mounted.ours_alone:  # only the first look at it shows that
                ours_alone = mounted.identity
            with Instance(mounted) as instance:
                observed = observer.observe(instance)
            problem = _missing(wanted, observed, facts)
            is_unmounted = mounted.identity == ours_alone and not observed.entries and not mounts.has(mounted.device)
            if problem is not None and is_unmounted:
                problem = f"{problem}; {unmounted(mounted.directory)}"
        except MountError as error:
            problem = None if all(architecture.name in natively() for architecture in wanted) else str(error)
        instance_watch.looked()
        now = time.monotonic()
        if problem is None or now >= deadline:
            return problem
        if problem != reported:
            warn(f"waiting: {problem}")
            reported = problem
        waiting.until(min(deadline, instance_watch.look_at(_LONGEST_SLEEP)))
        mounts.drain()
        watch.read()


def _attach(instance_watch: InstanceWatch) -> Mounted:
    instance_watch.attach(instance_watch.find_only())
    if instance_watch.mounted is None:
        raise MountError("binfmt_misc is not mounted")
    return instance_watch.mounted


def _missing(wanted: Iterable[Architecture], observed: ObservedState, facts: HostFacts) -> str | None:
    """Return the architectures whose programs do not run, and why; None if all run."""
    names: dict[str, list[str]] = {}
    for architecture in wanted:
        if (reason := _why_not(architecture, observed, facts)) is not None:
            names.setdefault(reason, []).append(architecture.name)
    return "; ".join(f"{', '.join(alike)}: {reason}" for reason, alike in names.items()) or None


def _why_not(architecture: Architecture, observed: ObservedState, facts: HostFacts) -> str | None:
    """Return why programs of an architecture do not run; None if an entry takes them and is not sure to fail.

    Also return None if no entry takes them, and they run natively.
    """
    if observed.switched_on:
        program = tiny_program(architecture)
        for entry in observed.entries:
            registration = entry.registration
            if entry.enabled and registration is not None and takes(registration.match, program):
                if not cannot_run(entry):
                    return None
                return f"entry {entry.name} takes such programs, but {registration.interpreter} cannot be executed"
    if architecture.name in facts.native(observed):
        return None
    return "no enabled entry takes such programs" if observed.switched_on else "binfmt_misc as a whole is switched off"
