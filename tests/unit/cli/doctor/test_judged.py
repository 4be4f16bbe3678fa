"""Findings about hosts that no test can provoke here: other kernels, WSL, an automount that hangs, seccomp."""

import pytest

from binfmtd.cli.doctor.host import judge, judge_release
from binfmtd.cli.doctor.managers import of_desktops, of_systemd
from binfmtd.cli.doctor.mounts import judge_mounted, not_mounted
from binfmtd.cli.doctor.remedies import split
from binfmtd.files.managers import Rules
from binfmtd.formats.mountinfo import MountLine
from binfmtd.formats.register_line import decode_line
from binfmtd.host.privileges import Privileges
from binfmtd.kernel.mount_layers import Layers
from binfmtd.model.finding import Level

POINT = "/proc/sys/fs/binfmt_misc"


def line(fs_type: str, device: int = 1, point: str = POINT, *, read_only: bool = False) -> MountLine:
    return MountLine(1, (0, device), "/", point, read_only, False, fs_type)  # noqa: FBT003  in the table's order


@pytest.mark.parametrize(
    ("version", "level", "words"),
    [
        ((4, 4), Level.FAILURE, "no flag F"),
        ((5, 10), Level.OK, "one instance for the whole host"),
        ((6, 7), Level.OK, "an instance for each user namespace"),
        ((0, 0), Level.UNSEEN, "no version"),
    ],
)
def test_releases(version: tuple[int, int], level: Level, words: str) -> None:
    """The finding about the kernel names its release, and what that version can do."""
    first = next(judge_release("1.2.3-odd", version))
    assert first.level is level
    assert words in first.text
    assert "1.2.3-odd" in first.text


def test_a_lifetime_is_not_concluded_from_an_old_version() -> None:
    """For a kernel before 6.7 the finding states that the lifetime of entries depends on the release."""
    old, new = (list(judge_release("x", version))[-1].text for version in ((6, 1), (6, 7)))
    assert "early releases of this kernel series keep entries" in old
    assert "removes all entries of an instance when its last mount ends" in new


def test_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc is not mounted, the remedy mounts that: a mount of binfmt_misc could not be found without it."""
    monkeypatch.setattr("os.path.isdir", lambda _: False)
    found = not_mounted(POINT, Layers((), ()), "why")
    assert (found.text, found.remedy) == (f"{POINT} does not exist: /proc is not mounted", "mount -t proc proc /proc")


def test_an_automount_that_does_not_mount() -> None:
    """An automount that is still on top after a look at it is a failure, with the command that restarts it."""
    found = not_mounted(POINT, Layers((line("autofs"),), ()), "why")
    assert (found.check, found.level) == ("automount", Level.FAILURE)
    assert found.remedy == "systemctl restart proc-sys-fs-binfmt_misc.automount"


def test_an_automount_beneath() -> None:
    """The finding states that binfmt_misc lies over an automount, and where else the same instance is mounted."""
    elsewhere = (line("binfmt_misc", 7, "/elsewhere"), line("binfmt_misc", 8, "/another"))
    (found,) = judge_mounted(POINT, Layers((line("autofs"), line("binfmt_misc", 7)), elsewhere), read_only=False)
    assert found.level is Level.OK
    assert found.text.endswith("over an automount; also at /elsewhere")


def privileges(uid: int = 0, **others: bool | str | None) -> Privileges:
    plain: dict[str, bool | str | None] = {
        "may_mount": True,
        "may_register": True,
        "filtered": False,
        "no_new_privileges": False,
        "code_memory": True,
        "confined_by": "",
    }
    return Privileges(uid, **(plain | others))  # type: ignore[arg-type]  # each of its own type


def test_a_sandbox() -> None:
    """The line on privileges names every restriction by a sandbox."""
    around = privileges(filtered=True, no_new_privileges=True, confined_by="docker-default (enforce)", may_mount=False)
    (found,) = judge(around)
    assert found.level is Level.OK
    for words in ("seccomp", "set-uid", "docker-default", "no CAP_SYS_ADMIN"):
        assert words in found.text
    assert [each.level for each in judge(privileges(code_memory=False))] == [Level.OK, Level.WARNING]
    (found,) = judge(privileges(may_register=False))
    assert "belongs to root of an outer user namespace" in found.text
    (found,) = judge(privileges(1000, may_register=False))
    assert "outer" not in found.text


def test_wsl_without_its_entry() -> None:
    """On WSL a missing WSLInterop is a warning, and the remedy is a line that the kernel takes."""
    release = "5.15.146.1-microsoft-standard-WSL2"
    (found,) = of_desktops(release, ("qemu-arm",), POINT)
    assert found.level is Level.WARNING
    quoted = found.remedy.removeprefix("printf %s ").removesuffix(f" >{POINT}/register")
    name, registration = decode_line(quoted.strip("'").encode())
    assert (name, registration.interpreter, registration.flags.letters) == ("WSLInterop", "/init", "PF")
    (found,) = of_desktops(release, ("WSLInterop-late",), POINT)
    assert found.level is Level.OK
    assert list(of_desktops("6.18.0-generic", (), POINT)) == []


@pytest.mark.parametrize(("release", "names"), [("6.10.14-linuxkit", ()), ("6.12", ("rosetta",))])
def test_docker_desktop(release: str, names: tuple[str, ...]) -> None:
    """Docker Desktop is recognised by its kernel's release, or by Rosetta's entry."""
    (found,) = of_desktops(release, names, POINT)
    assert (found.check, found.level) == ("docker_desktop", Level.OK)


def test_what_of_binfmt_d_cannot_be_read() -> None:
    """A binfmt.d file that cannot be read is reported as unseen, not as a fault of the host."""
    found = of_systemd(Rules(("/etc/binfmt.d/a.conf",), (), (), (), ("no way",)))
    assert {each.text: each.level for each in found if each.level is not Level.OK} == {"no way": Level.UNSEEN}


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ("'/x' is writable by other users: run `chmod go-w '/x'`", "chmod go-w '/x'"),
        ("'/x' belongs to another user: run `chown -h 0 '/x'`, or use a path that root owns", "chown -h 0 '/x'"),
        ("/z: Permission denied: run this as root", ""),
        ("/z: Permission denied: run as root, or with CAP_DAC_OVERRIDE", ""),
        ("/y is mounted read-only: run `mount -o remount,rw /y`", "mount -o remount,rw /y"),
        ("/y is not mounted: run `mount /y` as root; or, in a container, start that anew", "mount /y"),
        ("/y is not mounted: run `mount /y`, or start anew", "mount /y"),
        ("no executable file at /z", ""),
    ],
)
def test_commands_in_messages(message: str, command: str) -> None:
    """The command in one of our messages becomes the remedy."""
    text, found = split(message)
    assert found == command
    assert message.startswith(text)


def test_what_follows_a_command_is_not_lost() -> None:
    """If a message goes on after its command, the text of the finding is the whole message."""
    message = "/y is not mounted: run `mount /y` as root; in a container, start that with --privileged, or bind it in"
    assert split(message) == (message, "mount /y")
