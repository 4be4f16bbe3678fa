"""What the drop-ins are told by the environment, and where they work."""

from binfmtd.cli.options import switch
from binfmtd.kernel.mount import Where
from binfmtd.model.handler import Flags


def where(directory: str | None = None) -> Where:
    """Where binfmt_misc is said to be; the variables are those of the options of ``binfmtd apply``.

    Raises UsageError for a variable that is neither on nor off.
    """
    return Where(
        directory or None, autoload=not switch("BINFMTD_NO_AUTOLOAD"), own_instance=switch("BINFMTD_OWN_INSTANCE")
    )


def credentials() -> Flags:
    """C, where it is asked for: it lets foreign set-uid programs run as root, and so is off.  Raises as ``where``."""
    return Flags.C | Flags.O if switch("BINFMTD_CREDENTIALS") else Flags.NONE
