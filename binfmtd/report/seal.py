"""Whether binfmt_misc is sealed, as the status says it (``sealed`` in the config)."""

from typing import NamedTuple


class SealStatus(NamedTuple):
    """``state``: open, sealed, paused, unsealed (it should be sealed), impossible; with the reason, if there is one."""

    state: str
    reason: str = ""


STATES = ("open", "sealed", "paused", "unsealed", "impossible")
OPEN = SealStatus("open")
PAUSED = SealStatus("paused", "open until `binfmtd resume`")
BY_ANOTHER = SealStatus("sealed", "by another process; this daemon cannot write to it: `sealed = false` opens it")
