"""The file for node-feature-discovery."""

from pathlib import Path

from binfmtd.catalog.architectures import CATALOG
from binfmtd.model.probe_result import Probed, Tried
from binfmtd.report.labels import LabelsFile, labels

RUNS = Tried("aarch64", runs=True, natively=False, entry="qemu-aarch64", in_chroot=True, reason="", duration_us=1)
OTHERS = (RUNS._replace(name="arm", runs=False), RUNS._replace(name="mips", in_chroot=False))
PROBED = Probed(1_000_000_000, (RUNS, RUNS._replace(name="sh4", natively=True, entry=None), *OTHERS))
ARM64 = "feature.node.kubernetes.io/binfmt-arm64=true\n"


def test_names_that_kubernetes_takes() -> None:
    """A label has at most 63 letters, digits, dashes, underscores and dots, and no two are the same."""
    found = labels(Probed(0, tuple(RUNS._replace(name=name) for name in CATALOG)))
    names = [label.partition("/")[2] for label in found]
    assert len(names) == len(CATALOG)
    assert all(len(name) <= 63 and name.replace("-", "").replace("_", "").isalnum() for name in names)


def test_the_file(tmp_path: Path) -> None:
    """The file has a label for each architecture that runs anywhere, by the names of images; at first it has none."""
    path, file = tmp_path / "binfmtd", LabelsFile()
    file.keep(str(path), None, None)
    assert [line[:2] for line in path.read_text().splitlines()] == ["# "]
    file.keep(str(path), PROBED, None)
    assert path.read_text().endswith(f"{ARM64}feature.node.kubernetes.io/binfmt-sh4=true\n")
    assert path.read_text().count("=true") == 2
    assert "expiry" not in path.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["binfmtd"]


def test_labels_have_an_expiry_time(tmp_path: Path) -> None:
    """With an interval of probes the file has an expiry time: three intervals after the last probe."""
    LabelsFile().keep(str(tmp_path / "binfmtd"), PROBED, 600.0)
    assert "\n# +expiry-time=2001-09-09T02:16:40Z\n" in (tmp_path / "binfmtd").read_text()


def test_it_is_written_when_something_has_changed(tmp_path: Path) -> None:
    """The file is written when the labels have changed, or when another program has removed it."""
    path, file = tmp_path / "binfmtd", LabelsFile()
    file.keep(str(path), PROBED, None)
    inode = path.stat().st_ino
    file.keep(str(path), PROBED, None)
    assert path.stat().st_ino == inode
    path.unlink()
    file.keep(str(path), PROBED, None)
    assert ARM64 in path.read_text()


def test_another_path(tmp_path: Path) -> None:
    """A file that the config no longer names is removed."""
    file = LabelsFile()
    file.keep(str(tmp_path / "one"), PROBED, None)
    file.keep(str(tmp_path / "two"), PROBED, None)
    assert [each.name for each in tmp_path.iterdir()] == ["two"]
    file.keep(None, PROBED, None)
    assert list(tmp_path.iterdir()) == []
