"""``binfmtd apply``: one pass."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from binfmtd.cli import options
from binfmtd.cli.context import load_config, nothing_there, print_json, print_table, reconciler, state_dir, warn
from binfmtd.cli.plan import describe
from binfmtd.daemon.reconcile import Look, PassResult, Reconciler
from binfmtd.daemon.state_dir import APPLY, Lock, make_state_dir
from binfmtd.errors import AlreadyRunningError
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.mount import Mounted, find, find_or_mount
from binfmtd.kernel.write import Writer
from binfmtd.model.config import Config
from binfmtd.model.desired import Standing
from binfmtd.model.drift import Act, Action

DONE = 0
FAILED = 1
_DONE = {
    Act.REGISTER: "registered",
    Act.REPLACE: "replaced",
    Act.REMOVE: "removed",
    Act.ENABLE: "enabled",
    Act.DISABLE: "disabled",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is declared and not in order; ``errno`` is the kernel's, if it refused."""

    entry: str
    reason: str
    errno: int | None = None


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
        lock = Lock(directory, APPLY)
    except AlreadyRunningError as running:
        done: list[Action] = []
        failures = _beside(find(given.mount), config, directory)
        if failures:
            warn(
                f"nothing was written: a daemon keeps this instance (pid {running.pid}, state directory {directory}) "
                "as its own config says. To have this applied, put it into the daemon's config and reload it: "
                f"kill -HUP {running.pid}"
            )
    else:
        try:
            one_shot = reconciler(config, directory)
            result = _converge(find_or_mount(given.mount), one_shot)
        finally:
            lock.release()
        done, failures = result.done, _failures(result)
        for problem in (one_shot.ledger.problem, nothing_there(config, result.look.desired)):
            if problem:
                warn(problem)
    _print(done, failures, as_json=given.json)
    for warning in config.warnings:
        warn(warning)
    for failure in failures:
        warn(f"{failure.entry}: {failure.reason}")
    return FAILED if failures else DONE


def _converge(mounted: Mounted, one_shot: Reconciler) -> PassResult:
    with Instance(mounted) as instance:
        return one_shot.make_pass(instance, Writer(instance))


def _failures(result: PassResult) -> list[Failure]:
    refused = {action.entry: error for action, error in result.failed}
    drifting = [
        Failure(action.entry, f"still {action.drift.value}: somebody else is at work on it; try again")
        for action in result.look.plan.actions
        if action.entry not in refused
    ]
    refusals = [Failure(name, str(error), error.errno) for name, error in refused.items()]
    return [*_held(result.look), *refusals, *drifting]


def _beside(mounted: Mounted, config: Config, directory: str) -> list[Failure]:
    """A daemon is in charge: find what is wanted and not there, and write nothing."""
    with Instance(mounted) as instance:
        look = reconciler(config, directory).look(instance)
    sources = {declared.name: f"; declared by {declared.source}" for declared in config.declarations}
    drifting = [
        Failure(action.entry, f"{action.drift.value}: {action.reason}{sources.get(action.entry, '')}")
        for action in look.plan.actions
    ]
    return [*_held(look), *drifting]


def _held(look: Look) -> list[Failure]:
    held = (held for held in look.desired.held if held.standing is not Standing.ABSENT)
    return [Failure(each.name, f"{each.standing.value}: {each.reason}") for each in held]


def _print(done: Sequence[Action], failures: Sequence[Failure], *, as_json: bool) -> None:
    if as_json:
        failed = [asdict(failure) for failure in failures]
        print_json({"actions": [describe(action) for action in done], "failed": failed})
    elif done:
        rows = [(_DONE[action.act], action.entry, action.drift.value, action.reason) for action in done]
        print_table([("DONE", "ENTRY", "DRIFT", "REASON"), *rows])
    elif not failures:
        print("nothing to do")
