"""Manual, alerts and dashboard name only metrics that exist, and the manual names all of them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from binfmtd.model.drift import Drift
from binfmtd.report.counts import Counts
from binfmtd.report.metrics import render_metrics
from binfmtd.report.status import HANDLER_STATES, STATES

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "config" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "config" / "grafana" / "dashboard.json"
MANUAL = (ROOT / "docs" / "metrics.md").read_text("utf-8")
NAME = re.compile(r"\bbinfmtd_[a-z_]+")
ROW = re.compile(r"\| `(binfmtd_\w+)` \| (\w+) \|([^|]*)\|")

Kinds = dict[str, tuple[str, frozenset[str]]]


@pytest.fixture
def metrics(document: dict[str, Any], counts: Counts) -> Kinds:
    """Return name, as in a query -> type and labels."""
    text = render_metrics(document, counts, ready=True).decode()
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels if label != "le"),
        )
        for family in text_string_to_metric_families(text)
    }


def test_the_manual_has_each_metric(metrics: Kinds) -> None:
    """The manual has each metric, with its type and its labels, and no other."""
    documented = {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(MANUAL)}
    assert documented == metrics


def test_the_manual_has_each_word() -> None:
    """The manual has every state and every drift that a label can hold."""
    for word in (*STATES, *HANDLER_STATES, *(drift.value for drift in Drift)):
        assert re.search(rf"\b{word}\b", MANUAL), word


@pytest.mark.parametrize("path", [ALERTS, ALERTS.with_name("alerts_test.yaml"), DASHBOARD], ids=lambda path: path.name)
def test_alerts_and_dashboards_name_existing_metrics(metrics: Kinds, path: Path) -> None:
    """Alerts, their tests and the dashboard name no metric that does not exist."""
    asked = {re.sub("_(bucket|sum|count)$", "", name) for name in NAME.findall(path.read_text("utf-8"))}
    assert asked
    assert asked <= metrics.keys()


def test_the_dashboard_is_whole() -> None:
    """The dashboard is JSON, with its own number for each panel, and an expression in each."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(target["expr"] for panel in panels for target in panel["targets"])


@pytest.mark.parametrize(
    "command", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")], ids=lambda words: words[0]
)
def test_the_alerts(command: tuple[str, ...]) -> None:
    """The alerts are valid, and each fires when it should, with its words, and not before."""
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool: apt-get install promtool (before Debian 13: prometheus)")
    ran = subprocess.run(["promtool", *command], cwd=ALERTS.parent, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_alert_is_tested() -> None:
    """Each alert has a test in which it fires, and one in which it does not."""
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text("utf-8"))
    tests = ALERTS.with_name("alerts_test.yaml").read_text("utf-8")
    for alert in alerts:
        assert re.search(rf"alertname: {alert}\n\s+exp_alerts:\n", tests), alert
        assert re.search(rf"alertname: {alert}(, |\n\s+)exp_alerts: \[\]", tests), alert
