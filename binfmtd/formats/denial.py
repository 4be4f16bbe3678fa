"""Denials of AppArmor and SELinux, as the kernel logs them.

AppArmor: ``apparmor="DENIED" operation="open" profile="binfmtd" name="/etc/x" pid=7 comm="binfmtd" denied_mask="r"``.
SELinux: ``avc:  denied  { read } for  pid=7 comm="binfmtd" name="x" scontext=... tcontext=... tclass=file``.
A value without quotes that should have them is hexadecimal: it contains a space, a quote or a control character.
"""

import re
from typing import NamedTuple

_FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|(\S+))')
_AVC = re.compile(r"avc:\s+denied\s+\{ ([^}]*) \}")
_HEX = re.compile(r"(?:[0-9A-F]{2})+")
_TEXTS = frozenset({"profile", "name", "path", "comm"})


class Denial(NamedTuple):
    """One denial: the process, what confines it, and what it was denied on which file or other object."""

    module: str
    pid: int
    command: str  # the first 15 bytes of the name of the program, or of the thread
    confined_by: str  # the profile of AppArmor, or the context of SELinux
    action: str
    target: str


def parse_denial(line: str) -> Denial | None:
    """Return the denial of a line of the kernel's log; None if it is of something else, or was only logged."""
    fields = {key: quoted or _plain(key, word) for key, quoted, word in _FIELD.findall(line)}
    pid = fields.get("pid", "")
    if not pid.isdecimal():
        return None
    command = fields.get("comm", "")
    name = fields.get("path") or fields.get("name") or ""
    if fields.get("apparmor") == "DENIED":
        mask = fields.get("denied_mask") or fields.get("capname") or fields.get("fstype") or ""
        action = " ".join(filter(None, (fields.get("operation"), mask)))
        return Denial("AppArmor", int(pid), command, fields.get("profile", ""), action, name)
    if (avc := _AVC.search(line)) and fields.get("permissive") != "1":
        target = " ".join(filter(None, (name, fields.get("tclass"), fields.get("tcontext"))))
        return Denial("SELinux", int(pid), command, fields.get("scontext", ""), avc[1], target)
    return None


def _plain(key: str, word: str) -> str:
    if key in _TEXTS and _HEX.fullmatch(word):
        return bytes.fromhex(word).decode(errors="replace")
    return word
