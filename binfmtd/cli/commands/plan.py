"""``binfmtd plan``: print what ``binfmtd apply`` would do, and write nothing."""

import argparse
from collections.abc import Sequence

from binfmtd.cli import options
from binfmtd.cli.context import load_config, natively, not_mounted, nothing_there, nothing_to_do, reconciler
from binfmtd.cli.output import print_json, print_table, warn
from binfmtd.cli.state import state_dir_to_read
from binfmtd.cli.trial import look_and_try
from binfmtd.daemon.state_files.state_dir import running_pid
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.mount import find_to_look
from binfmtd.kernel.seal import how_to_open
from binfmtd.model.desired import UnavailableReason
from binfmtd.model.drift import Action, additive
from binfmtd.report.status import unavailable_reason

IN_SYNC = 0
DRIFT = 3


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd plan``."""
    command = options.parser("plan")
    options.add_config(command)
    options.add_arch(command)
    options.add_mount(command)
    options.add_state_dir(command)
    options.add_json(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0 if there is nothing to do, 3 if there is."""
    given = parser().parse_args(arguments)
    wanted = options.architectures(given)
    config = load_config(given, wanted)
    directory = state_dir_to_read(given)
    beside_daemon = running_pid(directory) is not None
    here = reconciler(config, directory, writes=False, beside_daemon=beside_daemon)
    with Instance(find_to_look(given.mount)) as instance:
        # Beside a daemon `apply` writes nothing, and the daemon itself tries no entry before a pass.
        assessment = here.assess(instance) if beside_daemon else look_and_try(here, instance)
    if instance.mounted.ours_alone:
        warn(not_mounted(given, instance.mounted.directory))
    opens = instance.mounted.sealed and config.policy.sealed is False and not beside_daemon
    if opens:
        warn(f"{instance.mounted.directory}: binfmt_misc is sealed: `binfmtd apply` would open it (sealed = false)")
    if assessment.plan.actions and not beside_daemon and instance.mounted.sealed and config.policy.sealed is None:
        warn(f"{instance.mounted.directory}: {how_to_open(instance.mounted.directory)}")
    if nothing := nothing_there(assessment.desired):
        warn(nothing)
    for text in natively(config, assessment.desired):
        warn(text)
    for unavailable in assessment.desired.unavailable:
        if unavailable.cause is not UnavailableReason.ABSENT:
            warn(f"{unavailable.name}: {unavailable.cause.value}: {unavailable_reason(unavailable)}")
    actions = [action for action in assessment.plan.actions if wanted is None or additive(action)]
    if given.json:
        print_json({"actions": [describe(action) for action in actions]})
    elif actions:
        print_table(
            [
                ("ACTION", "ENTRY", "DRIFT", "REASON"),
                *((action.act.value, action.entry, action.drift.value, action.reason) for action in actions),
            ]
        )
    else:
        print(nothing_to_do(assessment))
    return DRIFT if actions or opens else IN_SYNC


def describe(action: Action) -> dict[str, str]:
    """Return an action as it is in JSON."""
    return {
        "action": action.act.value,
        "entry": action.entry,
        "drift": action.drift.value,
        "reason": action.reason,
    }
