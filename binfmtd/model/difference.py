"""Describe how two registrations differ, in words for people."""

from binfmtd.model.handler import Registration
from binfmtd.model.match import Magic, Match, same


def difference(registered: Registration | None, wanted: Registration) -> str:
    """Return the fields of ``registered`` that differ, in the words of the config: "flags are OC, should be F"."""
    if registered is None:
        return "it contains something that this version of binfmtd cannot parse"
    changes = []
    if registered.interpreter != wanted.interpreter:
        changes.append(f"interpreter is {registered.interpreter}, should be {wanted.interpreter}")
    if registered.flags != wanted.flags:
        changes.append(f"flags are {registered.flags.letters or 'none'}, should be {wanted.flags.letters or 'none'}")
    if not same(registered.match, wanted.match):
        changes += _matches(registered.match, wanted.match)
    return "; ".join(changes)


def _matches(registered: Match, wanted: Match) -> list[str]:
    if not (isinstance(registered, Magic) and isinstance(wanted, Magic)):
        return [f"{_words(registered, ' is ')}, should be {_words(wanted, ' ')}"]
    pairs = (("magic", registered.magic.hex(), wanted.magic.hex()), ("offset", registered.offset, wanted.offset))
    masks = [match.mask.hex() if match.mask else "none" for match in (registered, wanted)]
    return [f"{key} is {is_}, should be {meant}" for key, is_, meant in (*pairs, ("mask", *masks)) if is_ != meant]


def _words(match: Match, verb: str) -> str:
    return f"magic{verb}{match.magic.hex()}" if isinstance(match, Magic) else f"extension{verb}{match.text}"
