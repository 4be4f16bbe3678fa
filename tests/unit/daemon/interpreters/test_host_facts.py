"""The facts about this host that programs have to be run for."""

from pathlib import Path

import pytest

from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.host import native


def test_a_failed_try_is_no_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the programs cannot be run, that does not mean that nothing runs natively; the error is reported."""

    def fail(_: object) -> frozenset[str]:
        raise BlockingIOError

    monkeypatch.setattr(native, "find_native", fail)
    facts = HostFacts(str(tmp_path))
    for find in (facts.native, facts.record):
        with pytest.raises(BlockingIOError):
            find(None)


def test_a_result_that_cannot_be_stored_is_a_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a place for native.json the result serves all the same."""
    monkeypatch.setattr(native, "find_native", lambda _: frozenset({"arm"}))
    assert HostFacts(str(tmp_path / "missing")).native(None) == {"arm"}
