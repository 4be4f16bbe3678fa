"""``binfmtd explain``, without a kernel: the facts about the host."""

from pathlib import Path

import pytest
from support.programs import FOREIGN, foreign_program

from binfmtd.catalog.architectures import CATALOG
from binfmtd.cli.commands import explain
from binfmtd.model.entry import ObservedState


def test_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The architectures that run natively are found out once, not for each file."""
    for name in "abc":
        foreign_program(tmp_path / name, CATALOG[FOREIGN])
    found_out: list[bool] = []

    def native(*_: object) -> frozenset[str]:
        found_out.append(True)
        return frozenset()

    monkeypatch.setattr(explain, "_look", lambda _: (ObservedState(), "/nowhere", ""))
    monkeypatch.setattr(explain, "_native", native)
    assert explain.main([str(tmp_path)]) == explain.ONE_DOES_NOT_RUN
    assert len(found_out) == 1
