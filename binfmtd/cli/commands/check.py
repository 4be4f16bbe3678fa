"""``binfmtd check``: validate the config, for this host, before a daemon uses it."""

import argparse
import os
from collections.abc import Sequence

from binfmtd.cli import options
from binfmtd.cli.bound_emulators import bound_emulators
from binfmtd.cli.context import doubts, load_config, natively, nothing_there, observe, without_directory
from binfmtd.cli.output import print_json, warn
from binfmtd.cli.state import state_dir_or_none
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.errors import ConfigError, FormatError
from binfmtd.formats.register_line import encode_line
from binfmtd.host.facts import may_mount
from binfmtd.kernel.seal import TAKES_CAPABILITY
from binfmtd.model.config import Config, StandInPolicy
from binfmtd.model.desired import DesiredState, UnavailableReason
from binfmtd.model.resolve import resolve
from binfmtd.model.stand_in import stand_in_name
from binfmtd.report.sentence import counted
from binfmtd.report.status import unavailable_reason

VALID = 0


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd check``."""
    command = options.parser("check")
    options.add_config(command)
    options.add_arch(command)
    options.add_mount(command)
    options.add_state_dir(command)
    options.add_json(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0 if the config is valid and this host accepts it, else 78.  Warnings do not change the status."""
    given = parser().parse_args(arguments)
    wanted = options.architectures(given)
    errors: list[str] = []
    warnings: list[str] = []
    handlers = waiting = 0
    try:
        config = load_config(given, wanted)
    except ConfigError as error:
        errors += [str(error), *error.others]
    else:
        desired = resolve(config, HostFacts(state_dir_or_none(given)).gather(config, observe(given.mount)))
        handlers = len(desired.handlers)
        warnings += natively(config, desired)
        warnings += config.warnings
        if nothing := nothing_there(desired):
            warnings.append(nothing)
        errors += _unavailable(desired, UnavailableReason.REFUSED)
        waiting = sum(unavailable.cause is UnavailableReason.WAITING for unavailable in desired.unavailable)
        warnings += _unavailable(desired, UnavailableReason.WAITING)
        warnings += _passed_over(desired)
        warnings += (f"{key}: {text}: make it, or correct the path" for key, text in without_directory(config).items())
        warnings += doubts(desired)
        warnings += _without_stand_in(config)
        warnings += _with_temporary_stand_ins(desired)
        warnings += [bound.problem for bound in bound_emulators(handler.registration for handler in desired.handlers)]
        if config.policy.sealed and not may_mount():
            # An ordinary user checks the config for a daemon that has more privileges.
            (errors if os.geteuid() == 0 else warnings).append(f"sealed = true: {TAKES_CAPABILITY}")
    if given.json:
        print_json({"valid": not errors, "handlers": handlers, "errors": errors, "warnings": warnings})
    else:
        for text in (*warnings, *errors):
            warn(text)
        if not errors:
            print(f"valid: {counted(handlers, 'handler')}" + (f", {waiting} waiting" if waiting else ""))
    return ConfigError.exit_code if errors else VALID


def _unavailable(desired: DesiredState, cause: UnavailableReason) -> list[str]:
    """Return one line for each reason, with the names of the handlers that cannot be registered for it."""
    names: dict[str, list[str]] = {}
    for unavailable in desired.unavailable:
        if unavailable.cause is cause:
            names.setdefault(unavailable_reason(unavailable), []).append(unavailable.name)
    return [f"{', '.join(handlers)}: {cause.value}: {reason}" for reason, handlers in names.items()]


def _passed_over(desired: DesiredState) -> list[str]:
    return [
        f"{name}: {passed.path} is not used: {passed.reason}"
        for name, interpreters in desired.passed_over.items()
        for passed in interpreters
    ]


def _with_temporary_stand_ins(desired: DesiredState) -> list[str]:
    if desired.policy.stand_ins is StandInPolicy.TEMPORARY:
        return []
    return [
        f"{name}: can take the same files as {other}, so its stand-in is temporary: executions fail for a moment when "
        "another program removes its entry"
        for name, other in sorted(desired.kept_temporary.items())
    ]


def _without_stand_in(config: Config) -> list[str]:
    from binfmtd.model.handler import Registration

    warnings = []
    for declared in config.specs:
        registration = Registration(declared.match, declared.interpreters[0], declared.flags)
        try:
            encode_line(stand_in_name(declared.name), registration)
        except FormatError:
            warnings.append(
                f"{declared.name}: its registration line is too long for a stand-in ({declared.source}): after a drift "
                "its files cannot run until no other program touches the entry; shorten name, magic or mask"
            )
    return warnings
