"""The permission to write an entry: what a pass asks before each write.

A command that makes one pass may write at once.  The daemon's pass waits until names are quiet, and backs off
(``daemon/repairs/pass_gate.py``).
"""

from enum import IntEnum, auto

from binfmtd.model.drift import Action, Drift


class WritePermission(IntEnum):
    """The permission to write the proper entry of a name."""

    BACKOFF = auto()  # we back off from the name
    WAIT = auto()  # another program may still be changing it
    IF_UNTOUCHED = auto()  # yes, unless another program touches the name at the last moment
    NOW = auto()  # yes, whatever other programs do


class WriteGate:
    """Allows every write but those of permanent stand-ins, which only the daemon keeps."""

    def considers(self, action: Action) -> bool:  # noqa: ARG002  for subclasses
        """Return False for an action that this pass leaves out altogether."""
        return True

    def permission(self, name: str) -> WritePermission:  # noqa: ARG002
        """Return the permission to write the proper entry of a name."""
        return WritePermission.NOW

    def may_keep(self, name: str, drift: Drift) -> bool:  # noqa: ARG002
        """Return True if the permanent stand-in of the handler ``name``, which has this drift, may be written."""
        return False

    def touched_since_read(self, name: str) -> bool:  # noqa: ARG002
        """Return True if another program has touched the name since the pass has read it."""
        return False

    def removed_by_name(self, name: str) -> bool:  # noqa: ARG002
        """Return True if another program wrote to the entry's own file, so the entry did not go in a flush."""
        return False
