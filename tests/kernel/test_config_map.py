"""With ``reload_on_change`` each new version of a ConfigMap's volume is loaded."""

from pathlib import Path

from support.config_map import ConfigMap
from support.daemon import StartDaemon
from support.instance import Instance
from support.waiting import wait_until


def files(main: str, more: str) -> dict[str, str]:
    return {"binfmtd.toml": main, "conf.d/more.toml": more}


def test_each_version_is_taken(start_daemon: StartDaemon, instance: Instance, tmp_path: Path) -> None:
    """Both files change in one step; an invalid version is rejected, and the version after it is loaded."""
    config_map = ConfigMap(tmp_path / "config")
    arm, reload = 'architectures = ["arm"]\n', "reload_on_change = true\n"
    config_map.write(files(reload, arm))
    daemon = start_daemon(options=("--config", str(tmp_path / "config/binfmtd.toml")))
    assert instance.names() == ["qemu-arm"]
    config_map.write(files(reload, 'architectures = ["riscv64"]\n'))
    wait_until(lambda: instance.names() == ["qemu-riscv64"], 10, "the second version")
    config_map.write(files(reload, "architectures = 1\n"))
    assert "conf.d/more.toml: architectures" in daemon.wait_for_log("config_rejected")["reason"]
    assert instance.names() == ["qemu-riscv64"]
    config_map.write(files(f"{reload}settle = '10ms'\n", arm))
    wait_until(lambda: instance.names() == ["qemu-arm"], 10, "the version after the invalid one")
    assert not daemon.logs("directory_unwatched")  # the old version was removed, which concerns no watch of ours
