"""The metrics as text: valid, complete, and with the values of the document and the counters."""

import shutil
import subprocess
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from binfmtd.report.counts import BOUNDS, Counts, Durations
from binfmtd.report.metrics import render_metrics
from binfmtd.report.status import HANDLER_STATES, STATES

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def text(document: dict[str, Any], counts: Counts) -> str:
    return render_metrics(document, counts, ready=False).decode()


def read(text: str) -> Samples:
    """Return every sample, by name and labels; none may occur twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_every_number_is_where_it_belongs(text: str) -> None:
    """Prometheus' own parser reads the values of the document and of the counters."""
    samples = read(text)
    assert value(samples, "binfmtd_repairs_total", entry="qemu-registered", drift="missing") == 3
    assert value(samples, "binfmtd_repairs_total", entry="", drift="unwanted") == 5
    assert value(samples, "binfmtd_passes_total", trigger="quiet") == 6
    assert value(samples, "binfmtd_contentions_total") == 8
    assert value(samples, "binfmtd_config_reload_failures_total") == 9
    assert value(samples, "binfmtd_config_generation") == 3
    assert value(samples, "binfmtd_config_last_reload_successful") == 0
    assert value(samples, "binfmtd_config_loaded_timestamp_seconds") == pytest.approx(1767323045.678)
    assert value(samples, "binfmtd_start_timestamp_seconds") == 1.5e9
    assert value(samples, "binfmtd_ready") == 0
    assert value(samples, "binfmtd_mounted") == 1
    assert {state: value(samples, "binfmtd_state", state=state) for state in STATES} == {
        **dict.fromkeys(STATES, 0),
        "degraded": 1,
    }
    for state in HANDLER_STATES:
        assert value(samples, "binfmtd_handlers", state=state) == 1
    assert value(samples, "binfmtd_handler_state", entry="qemu-waiting", architecture="arm", state="waiting") == 1
    assert value(samples, "binfmtd_contended", entry="qemu-contended") == 1
    assert value(samples, "binfmtd_pause_end_timestamp_seconds", entry="qemu-paused") == float("inf")
    assert value(samples, "binfmtd_foreign_entries", enabled="false") == 1


@pytest.mark.parametrize("mount", [None, {"directory": "/m", "read_only": False, "host_unmounted": True}])
def test_not_mounted(document: dict[str, Any], counts: Counts, mount: dict[str, Any] | None) -> None:
    """A mount that only this container keeps, after an unmount on its host, counts as none."""
    text = render_metrics(document | {"mount": mount}, counts, ready=False).decode()
    assert value(read(text), "binfmtd_mounted") == 0


def test_an_odd_name_is_escaped(text: str) -> None:
    """Quotes, backslashes, line ends and bytes that are not UTF-8 are escaped in a name."""
    shown = '<b>"odd"\\\\n\\xff'
    assert value(read(text), "binfmtd_repairs_total", entry=shown, drift="changed") == 1


def test_histograms_count_upwards(text: str) -> None:
    """Each bucket counts all durations that are no longer, the last one all; the sum is in seconds."""
    samples = read(text)
    name = "binfmtd_repair_duration_seconds"
    buckets = [value(samples, f"{name}_bucket", le=str(bound)) for bound in BOUNDS]
    assert buckets == [1, 1, 1, *[3] * (len(BOUNDS) - 3)]
    assert value(samples, f"{name}_bucket", le="+Inf") == value(samples, f"{name}_count") == 4
    assert value(samples, f"{name}_sum") == pytest.approx(31.00061)


def test_bounds_take_what_they_name() -> None:
    """Bounds go from 50 us to 30 s; a duration that is a bound itself belongs to it (le: less or equal)."""
    assert (BOUNDS[0], BOUNDS[-1]) == (0.00005, 30.0)
    assert list(BOUNDS) == sorted(BOUNDS)
    durations = Durations()
    durations.add(BOUNDS[0])
    durations.add(BOUNDS[-1])
    assert (durations.counts[0], durations.counts[-2], durations.counts[-1]) == (1, 1, 0)


def test_a_copy_stays_as_it_was(counts: Counts) -> None:
    """A copy of the counters, which a thread serves, has nothing that the loop counts later."""
    copy = counts.copy()
    assert copy.__dict__.keys() == counts.__dict__.keys()
    assert (copy.repairs, copy.passes, copy.started_at) == (counts.repairs, counts.passes, counts.started_at)
    shared = [name for name, value in vars(counts).items() if vars(copy)[name] is value]
    assert all(isinstance(vars(counts)[name], int | float) for name in shared), shared
    for changed in (counts.repairs, counts.passes):
        changed.clear()
    counts.served.add(1)
    counts.settled.add(1)
    assert copy.repairs
    assert copy.passes
    assert (sum(copy.served.counts), sum(copy.settled.counts)) == (4, 1)


def test_promtool_finds_nothing(text: str) -> None:
    """Names, units and help are as Prometheus requires them."""
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool: apt-get install promtool")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
