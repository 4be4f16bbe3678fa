"""The worker where nothing can be looked at."""

from pathlib import Path
from unittest import mock

from binfmtd.daemon.attachment import Attachment
from binfmtd.daemon.pacing import Pacing
from binfmtd.daemon.reconcile import Reconciler
from binfmtd.daemon.reporter import Reporter
from binfmtd.daemon.sealing import Sealing
from binfmtd.daemon.storm import Storm
from binfmtd.daemon.watch import Watch
from binfmtd.daemon.worker import Worker
from binfmtd.kernel.mount import Mounted


def test_an_instance_that_cannot_be_opened_from_the_start(tmp_path: Path) -> None:
    """It is said, and waited for: what has never been seen is not looked for again at once, for ever."""
    attachment = mock.create_autospec(Attachment, instance=True)
    attachment.mounted = Mounted(str(tmp_path / "closed"), 1, read_only=False)
    reconciler, sealing, watch, pacing, report = (
        mock.create_autospec(each, instance=True) for each in (Reconciler, Sealing, Watch, Pacing, Reporter)
    )
    worker = Worker(reconciler, attachment, sealing, watch, pacing, Storm(), report)
    assert worker.make_pass("start") is None
    assert attachment.mounted is None
    assert not worker.heard
    assert "is binfmt_misc still mounted there?" in report.trouble.call_args.args[0]
    pacing.forget.assert_called_once_with()
