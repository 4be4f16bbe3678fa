"""A ConfigMap's volume, as the kubelet lays it out (its AtomicWriter).

A directory for each version; ``..data``, a link to the one in force, is switched by a rename; the names that the
container sees are links through that, for a file in a directory (``conf.d/labels.toml``) the directory's.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path


class ConfigMap:
    """The volume."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._version = 0
        directory.mkdir()

    def write(self, files: Mapping[str, str]) -> None:
        """Replace the volume's files by these: path -> text."""
        old = self.directory / f"..version_{self._version}"
        self._version += 1
        new = self.directory / f"..version_{self._version}"
        for path, text in files.items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_text(text)
        (self.directory / "..data_tmp").symlink_to(new.name)
        (self.directory / "..data_tmp").rename(self.directory / "..data")
        for name in {Path(path).parts[0] for path in files}:
            if not (self.directory / name).is_symlink():
                (self.directory / name).symlink_to(f"..data/{name}")
        if old.exists():
            shutil.rmtree(old)
