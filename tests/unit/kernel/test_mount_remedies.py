"""The remedies that the message of a missing mount names in a user namespace."""

from pathlib import Path

import pytest

from binfmtd.errors import MountError
from binfmtd.kernel import mount


@pytest.fixture(autouse=True)
def _user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "in_user_namespace", lambda: True)
    monkeypatch.setattr(mount, "in_pod", lambda: False)
    monkeypatch.setattr(mount, "may_mount", lambda: True)
    monkeypatch.setattr(mount, "owns_mount_namespace", lambda: True)
    monkeypatch.setattr(mount, "container_manager", lambda: "")
    monkeypatch.delenv("INVOCATION_ID", raising=False)


def message(directory: Path) -> str:
    with pytest.raises(MountError) as raised:
        mount.find(str(directory))
    return str(raised.value)


@pytest.mark.parametrize(
    ("manager", "option"),
    [
        ("", "-v /proc/sys/fs/binfmt_misc:/binfmt_misc"),
        ("podman", "-v /proc/sys/fs/binfmt_misc:/binfmt_misc"),
        ("lxc", "lxc.mount.entry = /proc/sys/fs/binfmt_misc proc/sys/fs/binfmt_misc none bind 0 0"),
        ("systemd-nspawn", "--bind=/proc/sys/fs/binfmt_misc:/binfmt_misc"),
    ],
)
def test_the_option_that_binds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manager: str, option: str) -> None:
    """It is the option of the container's own manager; LXC and systemd-nspawn have no option -v."""
    monkeypatch.setattr(mount, "container_manager", lambda: manager)
    assert f"bind the host's into it (in a container: {option})" in message(tmp_path)


def test_a_service_that_may_not_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit's daemon may not mount, so commands are named and not an option of the daemon."""
    monkeypatch.setenv("INVOCATION_ID", "1")
    monkeypatch.setattr(mount, "may_mount", lambda: False)
    text = message(tmp_path)
    assert text.endswith(f"with `mount -t binfmt_misc binfmt_misc {tmp_path}` and then `systemctl restart binfmtd`")
    assert "--own-instance" not in text


@pytest.mark.parametrize(("service", "may"), [(True, True), (False, True), (False, False)])
def test_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, service: bool, may: bool) -> None:
    """Other processes mount an instance with --own-instance, a service with drop-ins/zz-mount.conf as well."""
    if service:
        monkeypatch.setenv("INVOCATION_ID", "1")
    monkeypatch.setattr(mount, "may_mount", lambda: may)
    assert message(tmp_path).endswith("for this namespace with --own-instance")


def test_a_mount_namespace_of_an_outer_user_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the kernel forbids each mount, so the remedy begins with a mount namespace of its own."""
    monkeypatch.setattr(mount, "owns_mount_namespace", lambda: False)
    assert message(tmp_path).endswith("for this namespace with --own-instance, after `unshare --mount`")


def test_a_mount_that_the_service_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 has it mounted: the service started before, or an older systemd hides it.  Both remedies are named."""
    monkeypatch.setattr(mount, "_hidden_from_service", lambda directory: directory == str(tmp_path))
    text = message(tmp_path)
    assert "restart the service" in text
    assert "install drop-ins/before-253.conf" in text
