import pytest

from binfmtd.model.probe_result import Tried


@pytest.mark.parametrize(
    ("runs", "in_chroot", "anywhere"),
    [(True, True, True), (True, None, True), (True, False, False), (False, None, False), (False, True, False)],
)
def test_what_runs_anywhere(runs: bool, in_chroot: bool | None, anywhere: bool) -> None:
    """An architecture runs anywhere if it runs here, and no attempt shows that it fails in a container."""
    tried = Tried("arm", runs, natively=False, entry=None, in_chroot=in_chroot, reason="", duration_us=1)
    assert tried.runs_anywhere is anywhere
