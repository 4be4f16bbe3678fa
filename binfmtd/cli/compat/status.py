"""The JSON document that tonistiigi/binfmt prints: the platforms that run, and the enabled entries."""

import json

from binfmtd.cli.compat.main import log
from binfmtd.cli.compat.platforms import native_architecture, supported, survey
from binfmtd.errors import BinfmtdError, MountError, ProbeError
from binfmtd.formats.register_line import to_bytes
from binfmtd.host.facts import OWN_PROGRAM
from binfmtd.host.interpreters import read_head
from binfmtd.host.probe import Prober
from binfmtd.host.probe_process import Attempt
from binfmtd.kernel.instance import Instance, Observer
from binfmtd.kernel.mount import Where, find_to_look
from binfmtd.model.stand_in import is_stand_in

_ESCAPED_BY_GO = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def document(where: Where) -> tuple[str, BinfmtdError | None]:
    """Return the document, as Go's json.MarshalIndent writes it, and the error that made it incomplete, or None.

    Without the right to try programs, ``supported`` contains only our own platform; without binfmt_misc, ``emulators``
    is null.
    """
    problem: BinfmtdError | None = None
    native = native_architecture(read_head(OWN_PROGRAM))
    attempts: dict[str, Attempt] = {}
    try:
        with Prober() as probe:
            attempts = survey(native, probe)
    except ProbeError as error:
        problem = error
    if not all(probed.in_chroot for probed in attempts.values()):
        log(
            "chroot is not permitted here: `supported` may include platforms whose entry has no flag F, which do not "
            "run in containers"
        )
    emulators: list[str] = []
    try:
        emulators = _emulators(where)
    except MountError as error:
        problem = error
    content = {"supported": supported(native, attempts), "emulators": emulators or None}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    # Go writes control characters that a terminal would obey unescaped.  Escaped, the JSON has the same value.
    shown = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    return shown.translate(_ESCAPED_BY_GO), problem


def _emulators(where: Where) -> list[str]:
    """Return the names of the enabled entries, in the order of their bytes, without stand-ins.  Raises MountError.

    A name may be any bytes to the kernel.  JSON cannot contain bytes that are not UTF-8: Go writes U+FFFD for them.
    """
    with Instance(find_to_look(where.directory)) as instance:
        names = [
            to_bytes(entry.name)
            for entry in Observer().observe(instance).entries
            if entry.enabled and not is_stand_in(entry.name)
        ]
    return [name.decode("utf-8", "replace") for name in sorted(names)]
