"""The document that tonistiigi/binfmt prints: which platforms run, and which entries there are."""

import json

from binfmtd.cli.compat.main import log
from binfmtd.cli.compat.platforms import native_architecture, supported, survey
from binfmtd.errors import BinfmtdError, MountError, ProbeError
from binfmtd.formats.line import to_bytes
from binfmtd.kernel.instance import Instance, Observer
from binfmtd.kernel.interpreters import head
from binfmtd.kernel.mount import Where, find_to_look
from binfmtd.kernel.probe import Attempt, Prober
from binfmtd.model.standin import is_stand_in

_ESCAPED_BY_GO = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def document(where: Where) -> tuple[str, BinfmtdError | None]:
    """The document of this moment, as Go's json.MarshalIndent writes it, and what could not be found out for it."""
    problem: BinfmtdError | None = None
    native = native_architecture(head("/proc/self/exe"))
    found: dict[str, Attempt] = {}
    try:
        with Prober() as probe:
            found = survey(native, probe)
    except ProbeError as error:
        problem = error
    if not all(probed.in_chroot for probed in found.values()):
        log("chroot is not permitted here: supported may list what runs without flag F, and so in no container")
    emulators: list[str] = []
    try:
        emulators = _emulators(where)
    except MountError as error:
        problem = error
    content = {"supported": supported(native, found), "emulators": emulators or None}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    # Go leaves what could steer a terminal as it is.  Escaped it is the same document.
    shown = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    return shown.translate(_ESCAPED_BY_GO), problem


def _emulators(where: Where) -> list[str]:
    """Names are bytes to the kernel; what is not UTF-8 in them JSON cannot hold, and Go writes U+FFFD for it."""
    with Instance(find_to_look(where.directory)) as instance:
        names = [
            to_bytes(entry.name)
            for entry in Observer().look(instance).entries
            if entry.enabled and not is_stand_in(entry.name)
        ]
    return [name.decode("utf-8", "replace") for name in sorted(names)]
