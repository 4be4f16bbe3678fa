"""Turn a config and the facts about this host into the desired state.

For each declared handler, ``resolve`` takes the first interpreter that exists and applies the guards.  The result is a
Handler to register, or an Unavailable with the reason why it cannot be registered now.  For example, a handler with two
possible paths of which only the second exists gets that one; if neither exists, it is WAITING.

This module makes no system calls: the caller passes the facts (which interpreters exist, what runs natively).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from binfmtd.model.config import Config, HandlerSpec
from binfmtd.model.desired import DesiredState, Facts, InterpreterFacts, PassedOver, Unavailable, UnavailableReason
from binfmtd.model.emulator_version import SYSTEM, command_to_add, version_of
from binfmtd.model.guard import takes_native
from binfmtd.model.handler import Flags, Handler, Registration

_DECLARED = [field for field in Handler._fields if field in HandlerSpec._fields]  # a handler has them from its config
P_VISIBLE_FROM = (5, 12)  # AT_FLAGS_PRESERVE_ARGV0: from this kernel on, QEMU can see that argv[0] was preserved
_SCRIPT_WITH_F = (
    "{} is a script, which flag F does not carry into containers and chroots: the program in its first line and the "
    "script itself must exist there, too, else each exec through it fails: "
)
_STATIC = "{} a static program (`binfmtd emulators configure` makes emulators with settings such as QEMU_CPU)"
_SCRIPT_WITH_O = "{} is a script, and with flag O or C every exec through it fails with ENOEXEC: "


def resolve(config: Config, facts: Facts, had: Collection[str] = ()) -> DesiredState:
    """Choose an interpreter for each declared handler, apply the guards, and put the handlers in order of rank.

    ``had``: the names of the handlers from "all" that had an interpreter before.  Without one now, they are LOST.
    """
    handlers: list[Handler] = []
    unavailable: list[Unavailable] = []
    candidates: dict[str, tuple[str, ...]] = {}
    passed_over: dict[str, tuple[PassedOver, ...]] = {}
    missing = _missing_versions(config, facts)
    for declared in sorted(config.specs, key=lambda declared: declared.priority):
        optional = declared.from_all or declared.unless_native
        if optional and declared.architecture in facts.native and not declared.force:
            continue
        choice = _choose(declared, facts, had, missing)
        if isinstance(choice, Unavailable):
            unavailable.append(choice)
            continue
        handlers.append(choice)
        if len(usable := _usable(declared, facts)) > 1 and declared.architecture is not None:
            candidates[declared.name] = usable
        if passed := _passed_over(declared, choice.registration.interpreter, facts, missing):
            passed_over[declared.name] = passed
    chosen = {handler.registration.interpreter for handler in handlers}
    file_identities = {
        path: known.file_identity
        for path, known in facts.interpreters.items()
        if known.file_identity is not None and path in chosen
    }
    known = {path: facts.interpreters.get(path, InterpreterFacts()) for path in chosen}
    remote = frozenset(path for path in chosen if known[path].remote)
    used = {handler.name: handler.registration.interpreter for handler in handlers if handler.enabled}
    fails = {name: known[path].fails for name, path in used.items() if known[path].fails}
    return DesiredState(
        tuple(handlers), tuple(unavailable), config.policy, file_identities, remote, candidates, passed_over, fails
    )


def _usable(declared: HandlerSpec, facts: Facts) -> tuple[str, ...]:
    """Return the paths of a handler's interpreters that exist, and that no other user can change."""
    known = {path: facts.interpreters.get(path, InterpreterFacts()) for path in declared.interpreters}
    return tuple(path for path, file in known.items() if file.file_identity is not None and file.untrusted is None)


def _missing_versions(config: Config, facts: Facts) -> frozenset[tuple[str, str]]:
    """Return store and name of each version that the config names, and of which no file exists."""
    there: dict[tuple[str, str], bool] = {}
    for declared in config.specs:
        for path in declared.interpreters:
            if (version := version_of(path, declared.store)) is not None:
                known = facts.interpreters.get(path, InterpreterFacts())
                exists = known.file_identity is not None or known.problem is not None or known.in_version
                there[declared.store, version] = there.get((declared.store, version), False) or exists
    return frozenset(version for version, exists in there.items() if not exists)


def _missing(path: str, declared: HandlerSpec, missing: Collection[tuple[str, str]]) -> str:
    """Return why the file at an interpreter's path is missing."""
    version = version_of(path, declared.store)
    if version is None:
        return f"no executable file at {path}"
    if (declared.store, version) in missing:
        return f"version {version} is not in {declared.store}: run `{command_to_add(version)}`"
    other = f'name another version, or "{SYSTEM}", in [emulators.{declared.architecture}]'
    return f"version {version} has no executable file {path}: {other}"


def _why_none(declared: HandlerSpec, missing: Collection[tuple[str, str]]) -> str:
    in_store = [path for path in declared.interpreters if version_of(path, declared.store) is not None]
    others = [path for path in declared.interpreters if path not in in_store]
    reasons = dict.fromkeys(_missing(path, declared, missing) for path in in_store)
    return "; ".join([*reasons, *([f"no executable file at {' and '.join(others)}"] if others else [])])


def _passed_over(
    declared: HandlerSpec, chosen: str, facts: Facts, missing: Collection[tuple[str, str]]
) -> tuple[PassedOver, ...]:
    """Return the interpreters of a list that precede the chosen one, if the config chooses them one by one.

    That the first of the distribution's usual paths does not exist is no news.
    """
    before = declared.interpreters[: declared.interpreters.index(chosen)]
    passed = []
    for path in before:
        known = facts.interpreters.get(path, InterpreterFacts())
        if known.fails:
            passed.append(PassedOver(path, f"it does not run programs: {known.fails}"))
        elif version_of(path, declared.store) is not None:
            passed.append(PassedOver(path, known.problem or _missing(path, declared, missing)))
    return tuple(passed)


def first_to_use(paths: Sequence[str], known: Mapping[str, InterpreterFacts]) -> str | None:
    """Return the first of these interpreters that exists and is not known to fail; None if none exists.

    If all of them fail, the first that exists may still run some programs.
    """
    existing = [path for path in paths if known[path].file_identity]
    return next((path for path in existing if not known[path].fails), existing[0] if existing else None)


def _refused_script(path: str, declared: HandlerSpec, flags: Flags) -> str | None:
    """Return why a script cannot be the interpreter, or None; of an architecture O alone is left out instead."""
    by = declared.set_by
    if Flags.F in flags:
        remedies = [_STATIC.format(by.program), by.no_flag_f.format((flags & Flags.P).letters), by.force]
        return f"{_SCRIPT_WITH_F.format(path)}{_any_of(remedies)} ({declared.source})"
    if Flags.C in flags or (Flags.O in flags and declared.architecture is None):
        remedies = [f"{by.program} a native program", by.no_credentials, by.force]
        return f"{_SCRIPT_WITH_O.format(path)}{_any_of(remedies)} ({declared.source})"
    return None


def _any_of(remedies: Iterable[str]) -> str:
    """Return ``a, b, or c``, without those that are empty."""
    *others, last = filter(None, remedies)
    return ", ".join([*others, f"or {last}"]) if others else last


def _choose(
    declared: HandlerSpec, facts: Facts, had: Collection[str], missing: Collection[tuple[str, str]]
) -> Handler | Unavailable:
    flags = declared.flags
    if declared.architecture is not None and facts.kernel < P_VISIBLE_FROM:
        flags &= ~Flags.P

    def hold(
        cause: UnavailableReason,
        reason: str,
        *,
        judged: bool = True,
        has_remedy: bool = False,
        untrusted: bool = False,
    ) -> Unavailable:
        return Unavailable(
            declared.name,
            declared.match,
            cause,
            reason,
            declared.architecture,
            declared.interpreters,
            flags,
            declared.priority,
            has_remedy,
            judged and facts.judges_paths,
            untrusted,
            declared.set_by.paths,
        )

    if declared.enabled and not declared.force and (taken := takes_native(declared.match, facts.header, facts.heads)):
        remedy = (
            _any_of([declared.set_by.match, declared.set_by.force])
            if declared.architecture is None
            else f"this host runs {declared.architecture} natively, so {declared.set_by.without}"
        )
        return hold(
            UnavailableReason.REFUSED,
            f"it takes this host's {taken}, so each exec of one would fail with ELOOP or run its interpreter instead: "
            f"{remedy} ({declared.source})",
        )
    known = {path: facts.interpreters.get(path, InterpreterFacts()) for path in declared.interpreters}
    path = first_to_use(declared.interpreters, known)
    if path is not None and declared.enabled:
        script = known[path].script and not declared.force
        refusal = known[path].untrusted or (_refused_script(path, declared, flags) if script else None)
        if refusal is not None:
            return hold(UnavailableReason.REFUSED, refusal, untrusted=known[path].untrusted is not None)
        if script:
            flags &= ~Flags.O
        if not known[path].sees_p:
            flags &= ~Flags.P
    # Without F the kernel resolves the path in the root of the process that calls exec, which may not be ours.
    elsewhere = not facts.judges_paths and Flags.F not in flags and not declared.from_all
    if path is None and declared.enabled and not elsewhere:
        for interpreter in declared.interpreters:
            if problem := known[interpreter].problem:
                return hold(UnavailableReason.WAITING, f"{interpreter}: {problem}", judged=False)
        # That an architecture of "all" has no emulator is no news, but that a version is missing is.
        asked = any((declared.store, version_of(path, declared.store)) in missing for path in declared.interpreters)
        without = UnavailableReason.LOST if declared.name in had else UnavailableReason.ABSENT
        cause = without if declared.from_all and not asked else UnavailableReason.WAITING
        in_store = any(version_of(path, declared.store) is not None for path in declared.interpreters)
        return hold(cause, _why_none(declared, missing), has_remedy=in_store)
    return Handler(
        registration=Registration(declared.match, path or declared.interpreters[0], flags),
        yields=declared.from_all,
        **{field: getattr(declared, field) for field in _DECLARED},
    )
