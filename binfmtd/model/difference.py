"""Describe how two registrations differ, in words for people."""

from binfmtd.model.handler import Registration
from binfmtd.model.match import Magic, Match, same


def difference(found: Registration | None, wanted: Registration) -> str:
    """Return the fields of ``found`` that differ, in the words of the config: "flags are OC, should be F"."""
    if found is None:
        return "it contains something that this version of binfmtd cannot parse"
    changes = []
    if found.interpreter != wanted.interpreter:
        changes.append(f"interpreter is {found.interpreter}, should be {wanted.interpreter}")
    if found.flags != wanted.flags:
        changes.append(f"flags are {found.flags.letters or 'none'}, should be {wanted.flags.letters or 'none'}")
    if not same(found.match, wanted.match):
        changes += _matches(found.match, wanted.match)
    return "; ".join(changes)


def _matches(found: Match, wanted: Match) -> list[str]:
    if not (isinstance(found, Magic) and isinstance(wanted, Magic)):
        return [f"{_words(found, ' is ')}, should be {_words(wanted, ' ')}"]
    pairs = (("magic", found.magic.hex(), wanted.magic.hex()), ("offset", found.offset, wanted.offset))
    masks = [match.mask.hex() if match.mask else "none" for match in (found, wanted)]
    return [f"{key} is {is_}, should be {meant}" for key, is_, meant in (*pairs, ("mask", *masks)) if is_ != meant]


def _words(match: Match, verb: str) -> str:
    return f"magic{verb}{match.magic.hex()}" if isinstance(match, Magic) else f"extension{verb}{match.text}"
