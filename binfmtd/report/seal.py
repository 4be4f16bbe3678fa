"""The state of the seal for the status (``sealed`` in the config)."""

from typing import NamedTuple


class SealStatus(NamedTuple):
    """The state: off, sealed, paused, unsealed (it should be sealed) or impossible; and the reason, if there is one."""

    state: str
    reason: str = ""


STATES = ("off", "sealed", "paused", "unsealed", "impossible")
OFF = SealStatus("off")
SEALED = SealStatus("sealed")
PAUSED = SealStatus("paused", "every program can change entries until `binfmtd resume`, or until the pause ends")
BUSY = SealStatus("unsealed", "a process has a file of binfmt_misc open for writing")
BY_ANOTHER = SealStatus("sealed", "another process sealed it, so this daemon cannot write: `sealed = false` opens it")
