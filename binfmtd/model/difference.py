"""How two registrations differ, for people."""

from binfmtd.model.handler import Registration
from binfmtd.model.match import Magic, Match, same


def difference(found: Registration | None, wanted: Registration) -> str:
    """From what to what, in the words of the config."""
    if found is None:
        return "it says something that this version does not know"
    changes = []
    if found.interpreter != wanted.interpreter:
        changes.append(f"interpreter {found.interpreter} instead of {wanted.interpreter}")
    if found.flags != wanted.flags:
        changes.append(f"flags {found.flags.letters or 'none'} instead of {wanted.flags.letters or 'none'}")
    if not same(found.match, wanted.match):
        changes.append(f"{_words(found.match)} instead of {_words(wanted.match)}")
    return ", ".join(changes)


def _words(match: Match) -> str:
    if isinstance(match, Magic):
        mask = "" if match.mask is None else f" mask {match.mask.hex()}"
        return f"magic {match.magic.hex()}{mask} at {match.offset}"
    return f"extension {match.text}"
