"""Environment variables that several drop-ins share."""

from binfmtd.cli.options import switch
from binfmtd.kernel.mount import Where


def where(directory: str | None = None) -> Where:
    """Return where to find or mount binfmt_misc: ``directory``, and the variables for the options of ``binfmtd apply``.

    Raises UsageError for a variable that is neither on nor off.
    """
    return Where(
        directory or None, autoload=not switch("BINFMTD_NO_AUTOLOAD"), own_instance=switch("BINFMTD_OWN_INSTANCE")
    )
