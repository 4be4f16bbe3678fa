"""``include``: a host's own rules are kept, with the meaning that systemd-binfmt gives them."""

from pathlib import Path

import pytest
from support.binfmt_d import SYSTEMD_BINFMT, needs_systemd_binfmt, put_binfmt_d
from support.cli import Cli
from support.daemon import StartDaemon
from support.instance import Instance
from support.waiting import wait_until

INCLUDE = "architectures = []\ninclude = ['binfmt.d']\n"


def rule(name: str, flags: str = "") -> str:
    return f":{name}:M::\\x00{name}::/usr/bin/true:{flags}\n"


def fill(etc: Path, run: Path, local: Path, lib: Path) -> None:
    """Fill a tree with every case of precedence."""
    (lib / "10-shared.conf").write_text(rule("from-lib") + rule("from-lib-too"))
    (etc / "10-shared.conf").write_text(rule("from-etc"))
    (lib / "20-masked.conf").write_text(rule("masked"))
    (etc / "20-masked.conf").symlink_to("/dev/null")
    (local / "30-emptied.conf").write_text(rule("emptied"))
    (run / "30-emptied.conf").write_text("")
    (lib / "40-dangling.conf").write_text(rule("dangling"))
    (etc / "40-dangling.conf").symlink_to("/nonexistent")
    (lib / "50-directory.conf").write_text(rule("directory"))
    (run / "50-directory.conf").mkdir()
    (lib / ".hidden.conf").write_text(rule("hidden"))
    (lib / "no-suffix").write_text(rule("no-suffix"))
    (local / "Z-first.conf").write_text(rule("z-first", "F"))
    (lib / "a-link.conf").symlink_to("no-suffix")
    (run / "b-lines.conf").write_bytes(
        b"# comment\n; comment\n \t" + rule("stripped", "POC").encode() + b"\r\n"
        b":broken:M::A:\n"
        b"::M::\\x00A::/usr/bin/true:\n"
        b",comma,E,,comma,,/usr/bin/true,F\n"
        b":twice:E::once::/usr/bin/true:\n:twice:E::twice::/usr/bin/true:\n"
        b":cr:M::\\x00c\rr::/usr/bin/true:\n"
        b":masked-bytes:M:2:\\x00\xff:\\xff\x80:/usr/bin/true:\n"
    )


@pytest.fixture
def directories(instance: Instance, tmp_path: Path) -> list[Path]:
    return list(put_binfmt_d(instance, tmp_path / "tree").values())


def test_the_same_as_systemd_binfmt(instance: Instance, cli: Cli, directories: list[Path]) -> None:
    """From one tree systemd-binfmt and `apply` register equal entries in one order; what is invalid is named."""
    needs_systemd_binfmt()
    fill(*directories)
    done = instance.run([str(SYSTEMD_BINFMT)])
    assert done.returncode == 1, "the bad lines are bad to systemd, too"
    names = instance.names()
    expected = {name: instance.read(name) for name in names}
    assert {"from-etc", "no-suffix", "z-first", "stripped", "comma", "twice", "masked-bytes"} == set(names)
    instance.remove("status")
    result = cli("apply", config=INCLUDE)
    assert result.status == 0, result.stderr
    assert instance.names() == names
    assert {name: instance.read(name) for name in names} == expected
    assert [message.partition(" ")[0].rstrip(":") for message in result.messages] == [
        "/etc/binfmt.d/40-dangling.conf",
        "/run/binfmt.d/50-directory.conf",
        "/run/binfmt.d/b-lines.conf:5",
        "/run/binfmt.d/b-lines.conf:6",
        "/run/binfmt.d/b-lines.conf:10",
        "/run/binfmt.d/b-lines.conf:10",
        "entry",
    ]


def test_a_hosts_rules_are_kept_repaired(
    instance: Instance, directories: list[Path], start_daemon: StartDaemon
) -> None:
    """Entries of binfmt.d are repaired after a removal or a flush, follow a reload, and the files stay unchanged."""
    etc, _, _, lib = directories
    (lib / "a.conf").write_text(rule("a") + rule("b", "F"))
    daemon = start_daemon(INCLUDE)
    assert sorted(instance.names()) == ["a", "b"]
    was = instance.inode("a")
    instance.remove("a")
    instance.wait_registered_anew("a", was)
    instance.remove("status")
    wait_until(lambda: sorted(instance.names()) == ["a", "b"], what="the repair of all")
    (etc / "a.conf").write_text(rule("c"))
    daemon.reload()
    wait_until(lambda: instance.names() == ["c"], what="what the higher directory says")
    assert (lib / "a.conf").read_text() == rule("a") + rule("b", "F")


def test_changes_are_noticed_without_a_signal(
    instance: Instance, directories: list[Path], start_daemon: StartDaemon
) -> None:
    """With reload_on_change a rule that a package adds, changes or removes takes effect without SIGHUP."""
    _, _, local, lib = directories
    start_daemon(INCLUDE + "reload_on_change = true\n")
    assert instance.names() == []
    (lib / "a.conf").write_text(rule("a"))
    wait_until(lambda: instance.names() == ["a"], what="the new file")
    (lib / "a.conf").write_text(rule("b"))
    wait_until(lambda: instance.names() == ["b"], what="the changed file")
    (local / "a.conf").symlink_to("/dev/null")
    wait_until(lambda: instance.names() == [], what="the mask")


def test_a_refused_rule(cli: Cli, directories: list[Path]) -> None:
    """A rule has no key `force`: the message names a declaration in the config, which replaces the rule."""
    (directories[0] / "a.conf").write_text(":name:M::#!::/usr/bin/true:\n")
    result = cli("apply", config=INCLUDE)
    remedy = "narrow its magic and mask, or declare it under [handlers] with force = true to register it anyway"
    assert (result.status, f": {remedy} (/etc/binfmt.d/a.conf:1)" in result.stderr) == (1, True)
    own = "[handlers.name]\nmagic = '#!'\ninterpreter = '/usr/bin/true'\nforce = true\n"
    assert cli("check", config=INCLUDE + own).status == 0


def test_an_own_word_outranks_an_included_one(instance: Instance, cli: Cli, directories: list[Path]) -> None:
    """[handlers] come after included rules: they win for the same files, and replace a rule of the same name."""
    (directories[0] / "a.conf").write_text(":low:E::jar::/usr/bin/true:\n:name:E::x::/usr/bin/true:\n")
    own = "[handlers.high]\nextension = 'jar'\ninterpreter = '/usr/bin/false'\n"
    own += "[handlers.name]\nextension = 'y'\ninterpreter = '/usr/bin/false'\n"
    result = cli("apply", config=INCLUDE + own)
    assert result.status == 0
    names = instance.names()
    assert names.index("high") < names.index("low")
    assert "extension .y" in instance.read("name")
    assert "entry 'name' is declared twice" in result.message
