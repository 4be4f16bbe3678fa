"""The metrics in Prometheus' text format: their names, and the source of each number.

docs/metrics.md describes them for users.  An entry's name is a label, escaped where it is not printable.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from binfmtd import __version__
from binfmtd.model.drift import Drift
from binfmtd.report.counts import BOUNDS, Counts, Durations
from binfmtd.report.printable import printable
from binfmtd.report.seal import STATES as SEAL_STATES
from binfmtd.report.status import HANDLER_STATES, STATES


def render_metrics(document: Mapping[str, Any], counts: Counts, *, ready: bool) -> bytes:
    """Return all metrics as text; ``ready`` is the value of binfmtd_ready."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once([*_whole(document, ready=ready), *_entries(document), *_counted(counts)]))
    return generate_latest(registry)


class _Once(Collector):
    """A collector of metrics that exist already."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def _whole(document: Mapping[str, Any], *, ready: bool) -> Iterator[Metric]:
    config = document["config"]
    info = GaugeMetricFamily("binfmtd_build_info", "The version of binfmtd that runs.", labels=["version"])
    info.add_metric([__version__], 1)
    yield info
    description = "1 for the present state of the daemon, 0 for the other states."
    state = GaugeMetricFamily("binfmtd_state", description, labels=["state"])
    for name in STATES:
        state.add_metric([name], document["state"] == name)
    yield state
    yield _gauge("binfmtd_ready", "1 if builds may be sent to this host, as /readyz reports, else 0.", ready)
    mount = document["mount"]
    mounted = mount is not None and not mount["host_unmounted"]
    description = "1 if binfmt_misc is mounted here and, for a daemon in a container, on its host, else 0."
    yield _gauge("binfmtd_mounted", description, mounted)
    description = "1 for the present state of the seal, 0 for the other states."
    seal = GaugeMetricFamily("binfmtd_seal", description, labels=["state"])
    for name in SEAL_STATES:
        seal.add_metric([name], document["seal"]["state"] == name)
    yield seal
    yield _gauge("binfmtd_config_generation", "Number of configs that have been in force.", config["generation"])
    yield _gauge(
        "binfmtd_config_last_reload_successful",
        "1 if the config files are valid, 0 while they are rejected.",
        config["error"] is None,
    )
    yield _gauge(
        "binfmtd_config_loaded_timestamp_seconds", "When the config in force was read.", _moment(config["loaded_at"])
    )


def _entries(document: Mapping[str, Any]) -> Iterator[Metric]:
    rows = document["handlers"]
    number = Counter(row["state"] for row in rows)
    handlers = GaugeMetricFamily("binfmtd_handlers", "Number of handlers in this state.", labels=["state"])
    for name in HANDLER_STATES:
        handlers.add_metric([name], number[name])
    yield handlers
    handler_state = GaugeMetricFamily(
        "binfmtd_handler_state", "1 for the present state of each handler.", labels=["entry", "architecture", "state"]
    )
    for row in rows:
        handler_state.add_metric([printable(row["name"]), printable(row["architecture"] or ""), row["state"]], 1)
    yield handler_state
    contended = GaugeMetricFamily(
        "binfmtd_contended", "1 for each entry whose repairs another process keeps undoing.", labels=["entry"]
    )
    for name in document["contended"]:
        contended.add_metric([printable(name)], 1)
    yield contended
    paused = GaugeMetricFamily(
        "binfmtd_pause_end_timestamp_seconds",
        "When the pause of an entry ends by itself; +Inf if it lasts until `binfmtd resume`.",
        labels=["entry"],
    )
    for pause in document["paused"]:
        paused.add_metric([printable(pause["name"])], _moment(pause["until"]))
    yield paused
    description = "Number of foreign entries (neither declared nor registered by binfmtd)."
    foreign = GaugeMetricFamily("binfmtd_foreign_entries", description, labels=["enabled"])
    count = document["foreign_count"]
    for answer, number in (("true", count["enabled"]), ("false", count["disabled"])):
        foreign.add_metric([answer], number)
    yield foreign


def _counted(counts: Counts) -> Iterator[Metric]:
    yield _gauge("binfmtd_start_timestamp_seconds", "When the daemon was started.", counts.started_at)
    repairs = CounterMetricFamily("binfmtd_repairs", "Drifts that the daemon has ended.", labels=["entry", "drift"])
    for (entry, drift), number in sorted(counts.repairs.items()):
        repairs.add_metric([printable(entry), drift], number)
    repairs.add_metric(["", Drift.UNWANTED.value], counts.unwanted)
    yield repairs
    description = "Passes made: comparisons of all of binfmt_misc with the config."
    passes = CounterMetricFamily("binfmtd_passes", description, labels=["trigger"])
    for trigger, number in sorted(counts.passes.items()):
        passes.add_metric([trigger], number)
    yield passes
    yield CounterMetricFamily(
        "binfmtd_contentions", "How often another process began to keep undoing repairs.", counts.contentions
    )
    yield CounterMetricFamily(
        "binfmtd_log_lines_dropped",
        "Log lines that were lost because the log's reader was not reading or had ended, or the disk was full.",
        counts.log_lines_dropped,
    )
    yield CounterMetricFamily("binfmtd_config_reload_failures", "Configs that were rejected.", counts.reload_failures)
    yield _gauge("binfmtd_last_pass_timestamp_seconds", "When a pass last ended.", counts.last_pass_at)
    yield _gauge(
        "binfmtd_last_success_timestamp_seconds",
        "When a pass last ended with every entry as declared.",
        counts.last_success_at,
    )
    yield _histogram(
        "binfmtd_repair_duration_seconds", "Seconds from noticing a drift until programs run again.", counts.served
    )
    yield _histogram(
        "binfmtd_settle_duration_seconds",
        "Seconds from noticing a drift until the proper entry is as declared.",
        counts.settled,
    )


def _gauge(name: str, description: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, description, value)


def _histogram(name: str, description: str, durations: Durations) -> HistogramMetricFamily:
    bounds = [*map(str, BOUNDS), "+Inf"]
    buckets = list(zip(bounds, accumulate(durations.counts), strict=True))
    return HistogramMetricFamily(name, description, buckets, durations.total)


def _moment(text: str | None) -> float:
    """Return an ISO timestamp as seconds since the epoch; infinity for None, a moment that never comes."""
    return float("inf") if text is None else datetime.fromisoformat(text).timestamp()
