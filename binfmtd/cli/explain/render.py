"""An explanation as text for people, and as a JSON document for programs."""

from collections.abc import Iterator

from binfmtd.cli.explain.diagnosis import Explanation
from binfmtd.cli.table import wrapped
from binfmtd.model.entry import Entry
from binfmtd.model.execution import Passed, PassedOver, Step
from binfmtd.model.match import Extension, Magic
from binfmtd.model.shebang import Shebang
from binfmtd.model.stand_in import PREFIX as STAND_IN
from binfmtd.report.printable import printable

_PASSED = {
    Passed.SHADOWED: "matches too, but a newer entry takes the file (shadowed)",
    Passed.DISABLED: "matches, but is disabled",
    Passed.SWITCHED_OFF: "matches, but binfmt_misc is switched off",
}


def document(found: Explanation) -> dict[str, object]:
    """Return what ``--json`` prints about one file."""
    entry = found.entry
    return {
        "file": found.file,
        "runs": found.runs,
        "by": found.by,
        "entry": _name(entry) if entry else None,
        "interpreter": next((step.interpreter for step in found.execution.steps if step.interpreter), None),
        "argv": list(found.execution.argv),
        "reason": found.reason or None,
        "remedy": found.remedy or None,
        "config": found.config or None,
        "errno": found.errno,
        "executable": bool(found.execution.steps),
        "kind": found.kind.word if found.kind else None,
        "architecture": found.kind.architecture if found.kind else None,
        "steps": [_step(step, found) for step in found.execution.steps],
        "notes": found.notes,
    }


def _step(step: Step, found: Explanation) -> dict[str, object]:
    taker = step.taker
    ours = "native" if step is found.execution.steps[-1] and found.execution.failure is None else None
    answer: dict[str, object] = {
        "path": step.path,
        "taken_by": "entry" if isinstance(taker, Entry) else "script" if taker else ours,
        "interpreter": step.interpreter,
        "passed_over": [{"entry": _name(each.entry), "because": each.passed.value} for each in _others(step)],
    }
    if isinstance(taker, Entry) and taker.registration is not None:
        match, reach = taker.registration.match, found.reach.get(taker.name)
        answer |= {"entry": _name(taker), "flags": taker.registration.flags.letters}
        if isinstance(match, Extension):
            answer["extension"] = match.text
        else:
            answer |= {
                "offset": match.offset,
                "bytes": _compared(step, match).hex(),
                "magic": match.magic.hex(),
                "mask": match.mask.hex() if match.mask else None,
            }
        if reach is not None:
            answer |= {"reachable": reach.here, "in_chroot": reach.in_chroot, "static": reach.static}
    elif isinstance(taker, Shebang):
        answer["argument"] = taker.argument
    return answer


def brief(found: Explanation) -> str:
    """Return the answer in one line."""
    return printable(f"{found.file}: {_verdict(found)}" + (f": {found.reason}" if found.reason else ""))


def full(found: Explanation, width: int | None) -> Iterator[str]:
    """Yield the whole explanation, line by line; ``width`` is the terminal's in columns, or None for no limit."""
    yield from wrapped(f"{found.file}: {_verdict(found)}", width, "", _MORE)
    if found.execution.steps and found.kind and not found.execution.nobody_takes_it:
        yield from wrapped(f"it is {found.kind.description}, and may be executed", width, "  ", _MORE)
    for number, step in enumerate(found.execution.steps, 1):
        last = number == len(found.execution.steps)
        for place, line in enumerate(_told(step, found, last=last)):
            text = line.lstrip(" ")
            front = f"  {f'{number}.' if place == 0 else '':<3}{' ' * (len(line) - len(text))}"
            yield from wrapped(text, width, front, " " * 7)
    if found.execution.steps and found.execution.failure is None:
        yield from wrapped(f"argv: {' '.join(map(_quoted, found.execution.argv))}", width, "  ", _MORE)
    labelled = [("why", found.reason), ("remedy", found.remedy), *(("note", note) for note in found.notes)]
    for label, text in labelled:
        if text:
            yield from wrapped(f"{label}: {text}", width, "  ", _MORE)
    if found.config:
        yield "  config:"
        for line in found.config.splitlines():
            yield printable(f"    {line}")


def _verdict(found: Explanation) -> str:
    if found.runs is None:
        return "unknown whether it runs"
    error = f" ({found.errno})" if found.errno else ""
    if not found.runs:
        return f"does not run{error}"
    through = [f"entry {_name(s.taker)}" if isinstance(s.taker, Entry) else s.interpreter for s in _rewritten(found)]
    return f"runs through {', then '.join(map(str, through))}" if through else "runs natively"


def _rewritten(found: Explanation) -> list[Step]:
    return [step for step in found.execution.steps if step.taker is not None]


def _told(step: Step, found: Explanation, *, last: bool) -> Iterator[str]:
    taker = step.taker
    if isinstance(taker, Entry) and taker.registration is not None:
        match = taker.registration.match
        yield f"{step.path}: entry {_name(taker)} takes it, and runs {step.interpreter}"
        if isinstance(match, Extension):
            yield f"by its extension: the part after the last dot is {match.text}"
        else:
            yield f"by its bytes from offset {match.offset}: {_compared(step, match).hex()}"
            yield f"{'with the magic':>{_WIDTH}}: {match.magic.hex()}"
            if match.mask:
                yield f"{'under the mask':>{_WIDTH}}: {match.mask.hex()}"
        yield f"flags: {taker.registration.flags.letters or 'none'}"
        if reach := found.reach.get(taker.name):
            here = "is usable here" if reach.here else "is not usable here"
            chroot = "in a chroot too" if reach.in_chroot else "in a chroot only if the chroot contains what it needs"
            yield f"its interpreter {here}" + (f", {chroot}: {reach.why}" if reach.here else f": {reach.why}")
    elif isinstance(taker, Shebang):
        argument = f", with the argument {_quoted(taker.argument)}" if taker.argument is not None else ""
        yield f"{step.path}: a script; its first line names {taker.interpreter}{argument}"
    elif last and found.execution.failure is None:
        yield f"{step.path}: a native program, which the kernel loads itself"
    else:
        yield f"{step.path}: no entry takes it"
    for each in _others(step):
        yield f"entry {_name(each.entry)}: {_PASSED[each.passed]}"


_MORE = " " * 4  # in front of a continuation line
_WIDTH = len("by its bytes from offset 0")


def _compared(step: Step, match: Magic) -> bytes:
    """Return the bytes of the file that an entry's magic is compared with; beyond the file's end they are NUL."""
    size = len(match.magic)
    return step.file.head[match.offset : match.offset + size].ljust(size, b"\0")


def _others(step: Step) -> list[PassedOver]:
    """Return the matching entries that do not take the file, one for each handler that does not take it either.

    A handler's proper entry and its stand-in are two if they are passed over for different reasons.
    """
    own = _name(step.taker) if isinstance(step.taker, Entry) else ""
    found: dict[tuple[str, Passed], PassedOver] = {}
    for each in step.passed_over:
        if _name(each.entry) != own:
            found.setdefault((_name(each.entry), each.passed), each)
    return list(found.values())


def _name(entry: Entry) -> str:
    """Return an entry's name; a stand-in is shown under the name of its handler."""
    return entry.name.removeprefix(STAND_IN)


def _quoted(word: str) -> str:
    from shlex import quote

    return quote(word)
