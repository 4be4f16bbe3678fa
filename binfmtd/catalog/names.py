"""The architecture for any of its names, and suggestions for a mistyped word.

Case and surrounding blanks do not matter.  An OCI platform may come with or without ``linux/``, before any name
(``linux/aarch64``), and with a variant (``arm/v7``); as in containerd the variant's ``v`` may be missing (``arm/7``).
A minor version of a variant (``arm64/v8.2``) counts as the major one.
"""

from collections.abc import Iterable

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.errors import FormatError

_SUGGESTIONS = 3
_BY_NAME = {name.lower().removeprefix("linux/"): row for row in CATALOG.values() for name in (row.name, *row.aliases)}


def find(name: str, also: Iterable[str] = ()) -> Architecture:
    """Return the architecture of this name.

    Raises FormatError for an unknown one, with the nearest names and the nearest of the words that have another meaning
    in this place.
    """
    wanted = name.strip().lower().removeprefix("linux/")
    plain, slash, variant = wanted.partition("/")
    architecture = _BY_NAME.get(plain)
    if architecture is None:
        choices = [word for row in CATALOG.values() for word in (row.name, row.goarch, *row.debian, *row.gnu) if word]
    elif not slash or _is_variant(architecture, variant):
        return architecture
    else:
        choices = [plain, *(f"{plain}/{known}" for known in architecture.variants)]
    hint = did_you_mean(wanted, [*choices, *also]) or "`binfmtd arch` lists the known ones"
    raise FormatError(f"unknown architecture {name.strip()!r}: {hint}")


def nearest(word: str, choices: Iterable[str]) -> tuple[str, ...]:
    """Return up to three of the choices that look like the word, the nearest first; case does not matter."""
    from difflib import get_close_matches  # for mistakes only

    spelled = {choice.lower(): choice for choice in choices}
    return tuple(spelled[key] for key in get_close_matches(word.lower(), spelled, _SUGGESTIONS))


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``did you mean a, b or c?`` with the nearest choices, or an empty text if none is near."""
    *others, last = nearest(word, choices) or ("",)
    if not last:
        return ""
    return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"


def _is_variant(architecture: Architecture, variant: str) -> bool:
    major = variant.partition(".")[0]
    return major in architecture.variants or f"v{major}" in architecture.variants
