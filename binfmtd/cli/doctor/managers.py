"""Check for other programs that register, remove or flush entries.

systemd-binfmt, update-binfmts, WSL and Docker Desktop are recognised by files, entries or the kernel's release; another
binfmtd by its process.
"""

import os
import shlex
from collections.abc import Collection, Iterator

from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.daemon.state_files.other_daemons import other_daemons
from binfmtd.daemon.state_files.state_dir import is_holder
from binfmtd.files.environment import booted_with_systemd, shares_first_processes
from binfmtd.files.managers import Rules, debian_formats, masked, packages_that_register, rules, unit_file
from binfmtd.formats.register_line import encode_line, to_text
from binfmtd.host.systemd import unit_state
from binfmtd.model.finding import Finding, Level, Section
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Magic
from binfmtd.model.stand_in import PREFIX, stand_in_name

_UNIT = "systemd-binfmt.service"
_WSL_NAME = "WSLInterop"
# The registration that WSL's own init makes: issue 8749 of microsoft/WSL quotes the entry's file.
_WSL_LINE = to_text(encode_line(_WSL_NAME, Registration(Magic(b"MZ"), "/init", Flags.P | Flags.F), readable=True))
_MOST = 6
APT_HOOK = "/etc/apt/apt.conf.d/90binfmtd-sealed"
_EXAMPLES = ("/usr/share/doc/binfmtd/examples/config/apt", "/usr/local/share/doc/binfmtd/examples/config/apt")


def _finding(check: str, level: Level, text: str, remedy: str = "") -> Finding:
    return Finding(Section.MANAGERS, check, level, text, remedy)


def of_managers(snapshot: Snapshot) -> Iterator[Finding]:
    """Report every manager that is found; one finding if there is none."""
    findings = [
        *of_systemd(rules()),
        *of_debian(debian_formats(), snapshot.declared.keys()),
        *of_desktops(os.uname().release, _names(snapshot), snapshot.directory),
        *_of_ours(snapshot),
        *(of_packages(packages_that_register()) if snapshot.config and snapshot.config.policy.sealed else ()),
    ]
    yield from findings or [
        _finding("none", Level.OK, "no other manager found: neither systemd-binfmt nor update-binfmts is installed")
    ]


def of_systemd(rules: Rules) -> Iterator[Finding]:
    """Report the state of systemd-binfmt, and the rules in its binfmt.d directories with their faults."""
    unit = unit_file(_UNIT)
    if unit is None and not rules.files:
        return
    for problem in rules.problems:  # first, since systemd-binfmt fails until it is corrected
        path, _, place = problem.partition(":")
        line = place.partition(":")[0]
        yield _finding("binfmt_d", Level.WARNING, problem, f"sed -i '{line}s/^/#/' {shlex.quote(path)}")
    for text in rules.unreadable:
        yield _finding("binfmt_d", Level.UNSEEN, text)
    number = len(rules.names)
    what = f"{number} rule{'' if number == 1 else 's'} of {_several(rules.files)}" if rules.files else "no rules"
    if unit is None:
        text = f"binfmt.d has {what}, but systemd-binfmt, which reads it, is not installed"
        yield _finding("systemd_binfmt", Level.OK, text)
    elif masked(unit):
        yield _finding("systemd_binfmt", Level.OK, f"systemd-binfmt is masked, so systemd does not start it ({what})")
    elif unit_state(_UNIT) == "failed":
        text = f"systemd-binfmt has failed, so some of its rules may not be registered ({what})"
        yield _finding("systemd_binfmt", Level.WARNING, text, f"systemctl restart {_UNIT}")
    else:
        runs = "" if booted_with_systemd() else " (systemd does not run here)"
        text = f"systemd-binfmt{runs} removes every entry when it starts, then registers {what}"
        yield _finding("systemd_binfmt", Level.OK, text)


def of_debian(formats: tuple[str, ...] | None, declared: Collection[str]) -> Iterator[Finding]:
    """Report update-binfmts (``formats`` is None without it), and its formats that the config declares, too."""
    if formats is None:
        return
    twice = [name for name in formats if name in declared]
    if twice:
        text = f"update-binfmts and the config both declare {_several(twice)}: each replaces the other's entry"
        names = " ".join(map(shlex.quote, twice))
        yield _finding("update_binfmts", Level.WARNING, text, f"for f in {names}; do update-binfmts --disable $f; done")
    else:
        text = f"update-binfmts manages {_several(formats) if formats else 'no formats'}"
        yield _finding("update_binfmts", Level.OK, text)


def of_packages(packages: Collection[str]) -> Iterator[Finding]:
    """Report the packages whose scripts call update-binfmts, which registers nothing while the instance is sealed."""
    if not packages:
        return
    text = (
        "the config seals binfmt_misc, and scripts of these packages call update-binfmts, which then registers nothing "
        f"and may fail: {_several(packages)}; run `binfmtd pause` before an upgrade, or install the hook for apt"
    )
    if os.path.exists(APT_HOOK):
        text = f"scripts of {_several(packages)} call update-binfmts; {APT_HOOK} opens the seal while apt runs them"
        yield _finding("packages", Level.OK, text)
    else:
        examples = next(filter(os.path.isdir, _EXAMPLES), "config/apt")  # the default is their place in a checkout
        hook = f"install -m 755 {examples}/binfmtd-apt /usr/local/sbin/ && install -m 644 {examples}/90binfmtd-sealed"
        yield _finding("packages", Level.WARNING, text, f"{hook} {os.path.dirname(APT_HOOK)}/")


def of_desktops(release: str, names: Collection[str], directory: str) -> Iterator[Finding]:
    """Report WSL and Docker Desktop, each recognised by the kernel's ``release`` or by the ``names`` of entries."""
    interop = sorted(name for name in names if name.startswith(_WSL_NAME))
    if interop:
        text = (
            f"WSL runs Windows programs through {_several(interop)}; a running daemon restores after a flush what "
            f"`restore` in its config names (by default {_WSL_NAME}*)"
        )
        yield _finding("wsl", Level.OK, text)
    elif "microsoft" in release.lower():
        text = (
            f"this is WSL, but its entry {_WSL_NAME} is missing: Windows programs do not start; "
            "config/presets/wsl.toml, copied to /etc/binfmtd/conf.d, declares it for each start"
        )
        line = f"printf %s {shlex.quote(_WSL_LINE)} >{shlex.quote(os.path.join(directory, 'register'))}"
        yield _finding("wsl", Level.WARNING, text, line)
    if release.endswith("-linuxkit") or "rosetta" in names:
        text = "this is the virtual machine of Docker Desktop or a similar program, which registers its own emulators"
        yield _finding("docker_desktop", Level.OK, text)


def _of_ours(snapshot: Snapshot) -> Iterator[Finding]:
    others = [] if snapshot.mounted is None else other_daemons(snapshot.mounted.device, snapshot.pid)
    # The lock of a daemon in a container names it by its id in there.
    others = [other for other in others if not is_holder(other.pid, snapshot.state_dir)]
    for other in others:
        text = f"another daemon of binfmtd manages this instance (pid {other.pid}: {' '.join(other.arguments).strip()})"
        yield _finding("binfmtd", Level.WARNING, text, f"kill {other.pid}")
    sees_others = shares_first_processes()
    if not sees_others:
        text = "cannot see whether other daemons of binfmtd run: only this container's processes are visible"
        yield _finding("binfmtd", Level.UNSEEN, text)
    elif not os.path.isdir("/proc/1"):
        text = "cannot see whether other daemons of binfmtd run: /proc hides the processes of other users"
        yield _finding("binfmtd", Level.UNSEEN, text)
    # Stand-ins of declared handlers serve: they stay.
    needed = {stand_in_name(name) for name in snapshot.desired.by_name}
    stand_ins = [name for name in _names(snapshot) if name.startswith(PREFIX) and name not in needed]
    if stand_ins and sees_others and not others and snapshot.mounted is not None and snapshot.pid is None:
        text = f"a daemon that has ended left its stand-ins registered: {_several(stand_ins)}"
        entries = os.path.join(shlex.quote(snapshot.mounted.directory), '"$name"')
        words = " ".join(map(shlex.quote, stand_ins))
        yield _finding("stand_ins", Level.WARNING, text, f"for name in {words}; do echo -1 >{entries}; done")


def _names(snapshot: Snapshot) -> tuple[str, ...]:
    return () if snapshot.observed is None else tuple(snapshot.observed.by_name)


def _several(names: Collection[str]) -> str:
    listed = list(names)
    more = len(listed) - _MOST
    return ", ".join([*listed[:_MOST], *([f"and {more} more"] if more > 0 else [])])
