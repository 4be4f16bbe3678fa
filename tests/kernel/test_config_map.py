"""A ConfigMap as the kubelet lays it out (its AtomicWriter): ``reload_on_change`` sees each new version.

A directory for each version; ``..data``, a link to the one in force, is switched by a rename; the names that the
container sees are links through that, for a file in a directory (``conf.d/labels.toml``) the directory's.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from support.daemon import Daemon
from support.instance import Instance
from support.waiting import wait_until

StartDaemon = Callable[..., Daemon]


class ConfigMap:
    """The volume."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._version = 0
        directory.mkdir()

    def write(self, **files: str) -> None:
        """Put these in the place of what is there; ``conf_d`` is conf.d/more.toml."""
        old = self._directory / f"..version_{self._version}"
        self._version += 1
        new = self._directory / f"..version_{self._version}"
        (new / "conf.d").mkdir(parents=True)
        (new / "binfmtd.toml").write_text(files["main"])
        (new / "conf.d" / "more.toml").write_text(files["conf_d"])
        (self._directory / "..data_tmp").symlink_to(new.name)
        (self._directory / "..data_tmp").rename(self._directory / "..data")
        for name in ("binfmtd.toml", "conf.d"):
            if not (self._directory / name).is_symlink():
                (self._directory / name).symlink_to(f"..data/{name}")
        if old.exists():
            shutil.rmtree(old)


def test_each_version_is_taken(start_daemon: StartDaemon, instance: Instance, tmp_path: Path) -> None:
    """Both files change in one step; an invalid version is refused, the old stays, and the next one is seen again."""
    config_map = ConfigMap(tmp_path / "config")
    arm, reload = 'architectures = ["arm"]\n', "reload_on_change = true\n"
    config_map.write(main=reload, conf_d=arm)
    daemon = start_daemon(options=("--config", str(tmp_path / "config/binfmtd.toml")))
    assert instance.names() == ["qemu-arm"]
    config_map.write(main=reload, conf_d='architectures = ["riscv64"]\n')
    wait_until(lambda: instance.names() == ["qemu-riscv64"], 10, "the second version")
    config_map.write(main=reload, conf_d="architectures = 1\n")
    assert "conf.d/more.toml: architectures" in daemon.wait_for_log("config_rejected")["reason"]
    assert instance.names() == ["qemu-riscv64"]
    config_map.write(main=f"{reload}settle = '10ms'\n", conf_d=arm)
    wait_until(lambda: instance.names() == ["qemu-arm"], 10, "the version after the invalid one")
