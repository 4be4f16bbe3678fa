"""An explanation as text for people, and as a JSON document for programs."""

from collections.abc import Iterator

from binfmtd.cli.explain.diagnosis import Explanation, shown
from binfmtd.cli.table import wrapped
from binfmtd.model.entry import Entry
from binfmtd.model.execution import Passed, PassedOver, Step
from binfmtd.model.match import Extension, Magic
from binfmtd.model.shebang import Shebang
from binfmtd.report.printable import printable

_PASSED = {
    Passed.SHADOWED: "matches too, but a newer entry takes the file (shadowed)",
    Passed.DISABLED: "matches, but is disabled",
    Passed.SWITCHED_OFF: "matches, but binfmt_misc is switched off",
}


def document(explanation: Explanation) -> dict[str, object]:
    """Return what ``--json`` prints about one file."""
    entry = explanation.entry
    return {
        "file": explanation.file,
        "runs": explanation.runs,
        "by": explanation.by,
        "entry": shown(entry) if entry else None,
        "interpreter": next((step.interpreter for step in explanation.execution.steps if step.interpreter), None),
        "argv": list(explanation.execution.argv),
        "reason": explanation.reason or None,
        "remedy": explanation.remedy or None,
        "config": explanation.config or None,
        "errno": explanation.errno,
        "executable": bool(explanation.execution.steps),
        "kind": explanation.kind.word if explanation.kind else None,
        "architecture": explanation.kind.architecture if explanation.kind else None,
        "steps": [_step(step, explanation) for step in explanation.execution.steps],
        "notes": explanation.notes,
    }


def _step(step: Step, explanation: Explanation) -> dict[str, object]:
    taker = step.taker
    ours = "native" if step is explanation.execution.steps[-1] and explanation.execution.failure is None else None
    answer: dict[str, object] = {
        "path": step.path,
        "taken_by": "entry" if isinstance(taker, Entry) else "script" if taker else ours,
        "interpreter": step.interpreter,
        "passed_over": [{"entry": shown(other.entry), "because": other.passed.value} for other in _others(step)],
    }
    if isinstance(taker, Entry) and taker.registration is not None:
        match, reach = taker.registration.match, explanation.reach.get(taker.name)
        answer |= {"entry": shown(taker), "flags": taker.registration.flags.letters}
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


def brief(explanation: Explanation) -> str:
    """Return the answer in one line."""
    return printable(
        f"{explanation.file}: {_verdict(explanation)}" + (f": {explanation.reason}" if explanation.reason else "")
    )


def full(explanation: Explanation, width: int | None) -> Iterator[str]:
    """Yield the whole explanation, line by line; ``width`` is the terminal's in columns, or None for no limit."""
    yield from wrapped(f"{explanation.file}: {_verdict(explanation)}", width, "", _MORE)
    if explanation.execution.steps and explanation.kind and not explanation.execution.no_handler_takes_it:
        yield from wrapped(f"it is {explanation.kind.description}, and may be executed", width, "  ", _MORE)
    for number, step in enumerate(explanation.execution.steps, 1):
        last = number == len(explanation.execution.steps)
        for place, line in enumerate(_in_words(step, explanation, last=last)):
            text = line.lstrip(" ")
            front = f"  {f'{number}.' if place == 0 else '':<3}{' ' * (len(line) - len(text))}"
            yield from wrapped(text, width, front, " " * 7)
    if explanation.execution.steps and explanation.execution.failure is None:
        yield from wrapped(f"argv: {' '.join(map(_quoted, explanation.execution.argv))}", width, "  ", _MORE)
    labelled = [
        ("why", explanation.reason),
        ("remedy", explanation.remedy),
        *(("note", note) for note in explanation.notes),
    ]
    for label, text in labelled:
        if text:
            yield from wrapped(f"{label}: {text}", width, "  ", _MORE)
    if explanation.config:
        yield "  config:"
        for line in explanation.config.splitlines():
            yield printable(f"    {line}")


def _verdict(explanation: Explanation) -> str:
    if explanation.runs is None:
        return "unknown whether it runs"
    error = f" ({explanation.errno})" if explanation.errno else ""
    if not explanation.runs:
        return f"does not run{error}"
    takers = [(step.taker, step.interpreter) for step in explanation.execution.steps if step.taker is not None]
    through = [f"entry {shown(taker)}" if isinstance(taker, Entry) else interpreter for taker, interpreter in takers]
    return f"runs through {', then '.join(map(str, through))}" if through else "runs natively"


def _in_words(step: Step, explanation: Explanation, *, last: bool) -> Iterator[str]:
    taker = step.taker
    if isinstance(taker, Entry) and taker.registration is not None:
        match = taker.registration.match
        yield f"{step.path}: entry {shown(taker)} takes it, and runs {step.interpreter}"
        if isinstance(match, Extension):
            yield f"by its extension: the part after the last dot is {match.text}"
        else:
            yield f"by its bytes from offset {match.offset}: {_compared(step, match).hex()}"
            yield f"{'with the magic':>{_WIDTH}}: {match.magic.hex()}"
            if match.mask:
                yield f"{'under the mask':>{_WIDTH}}: {match.mask.hex()}"
        yield f"flags: {taker.registration.flags.letters or 'none'}"
        if reach := explanation.reach.get(taker.name):
            here = "is usable here" if reach.here else "is not usable here"
            chroot = "in a chroot too" if reach.in_chroot else "in a chroot only if the chroot contains what it needs"
            yield f"its interpreter {here}" + (f", {chroot}: {reach.why}" if reach.here else f": {reach.why}")
    elif isinstance(taker, Shebang):
        argument = f", with the argument {_quoted(taker.argument)}" if taker.argument is not None else ""
        yield f"{step.path}: a script; its first line names {taker.interpreter}{argument}"
    elif last and explanation.execution.failure is None:
        yield f"{step.path}: a native program, which the kernel loads itself"
    else:
        yield f"{step.path}: no entry takes it"
    for other in _others(step):
        yield f"entry {shown(other.entry)}: {_PASSED[other.passed]}"


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
    own = shown(step.taker) if isinstance(step.taker, Entry) else ""
    others: dict[tuple[str, Passed], PassedOver] = {}
    for other in step.passed_over:
        if shown(other.entry) != own:
            others.setdefault((shown(other.entry), other.passed), other)
    return list(others.values())


def _quoted(word: str) -> str:
    from shlex import quote

    return quote(word)
