"""``binfmtd apply``: one pass."""

from collections.abc import Sequence

from binfmtd.cli import options
from binfmtd.cli.context import load_config, print_json, print_table, reconciler, state_dir, warn
from binfmtd.cli.plan import describe
from binfmtd.daemon.reconcile import PassResult, Reconciler
from binfmtd.daemon.state_dir import Lock, make_state_dir
from binfmtd.errors import AlreadyRunningError
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.mount import Mounted, find, find_or_mount
from binfmtd.kernel.write import Writer
from binfmtd.model.config import Config
from binfmtd.model.desired import Standing

DONE = 0
FAILED = 1


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 if all that the config declares is in order at the end, 1 if not."""
    parser = options.parser("apply", epilog="Beside a running daemon nothing is written: its config is what counts.")
    options.add_config(parser)
    options.add_mount(parser)
    options.add_state_dir(parser)
    options.add_json(parser)
    given = parser.parse_args(arguments)
    config = load_config(given)
    directory = state_dir(given)
    make_state_dir(directory)
    try:
        lock = Lock(directory)
    except AlreadyRunningError as running:
        return _beside(running.pid, find(given.mount), config, directory)
    try:
        result = _converge(find_or_mount(given.mount), reconciler(config, directory))
    finally:
        lock.release()
    _print(result, as_json=given.json)
    for warning in config.warnings:
        warn(warning)
    held = [held for held in result.look.desired.held if held.standing is not Standing.ABSENT]
    for each in held:
        warn(f"{each.name}: {each.standing.value}: {each.reason}")
    for action, error in result.failed:
        warn(f"{action.entry}: {error}")
    for action in result.look.plan.actions:
        if action.entry not in {failed.entry for failed, _ in result.failed}:
            warn(f"{action.entry}: still {action.drift.value}: somebody else is at work on it; try again")
    return FAILED if held or result.failed or result.look.plan.actions else DONE


def _converge(mounted: Mounted, one_shot: Reconciler) -> PassResult:
    with Instance(mounted) as instance:
        return one_shot.make_pass(instance, Writer(instance))


def _beside(pid: int, mounted: Mounted, config: Config, directory: str) -> int:
    """A daemon is in charge: say whether what is wanted is there, and write nothing."""
    with Instance(mounted) as instance:
        actions = reconciler(config, directory).look(instance).plan.actions
    if not actions:
        return DONE
    warn(
        f"nothing was written: a daemon keeps this instance (pid {pid}, state directory {directory}) as its own config "
        f"says. To have this applied, put it into the daemon's config and reload it: kill -HUP {pid}"
    )
    for action in actions:
        warn(f"{action.entry}: {action.drift.value}: {action.reason}")
    return FAILED


def _print(result: PassResult, *, as_json: bool) -> None:
    if as_json:
        failed = [
            {"entry": action.entry, "errno": error.errno, "reason": str(error)} for action, error in result.failed
        ]
        print_json({"actions": [describe(action) for action in result.done], "failed": failed})
    elif result.done:
        rows = [(action.act.value, action.entry, action.drift.value, action.reason) for action in result.done]
        print_table([("ACTION", "ENTRY", "DRIFT", "REASON"), *rows])
    else:
        print("nothing to do")
