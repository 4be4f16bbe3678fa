"""The results of a probe, from those of its programs."""

import pytest
from support import Closing

from binfmtd.catalog.architectures import CATALOG
from binfmtd.cli import probing
from binfmtd.cli.probing import probe, way
from binfmtd.host.probe_process import Attempt
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Registration

ALPHA = Entry("mine", 1, enabled=True, registration=Registration(CATALOG["alpha"].match, "/alpha", Flags.F))


class Untraced(Closing):
    """A prober that may not use ptrace(2), and whose programs run."""

    def close(self) -> None:
        pass

    def __call__(self, name: str, _: bytes) -> Attempt:
        return Attempt(name, runs=True, natively=None, in_chroot=True, reason="", duration=0.1)


def test_where_ptrace_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that runs, and that no entry takes, runs natively; it is unknown only if no entry can be read."""
    monkeypatch.setattr(probing, "Prober", lambda **_: Untraced())
    wanted = [CATALOG["alpha"], CATALOG["sh4"]]
    assert [way(each) for each in probe(wanted, ObservedState((ALPHA,)))] == ["through mine", "natively"]
    assert [way(each) for each in probe(wanted, ObservedState((ALPHA,), switched_on=False))] == ["natively"] * 2
    assert {way(each) for each in probe(wanted, None)} == {"natively or through an entry that cannot be seen from here"}
