"""packaging/helm: the table in the chart's README is that of the schema, and the versions are the package's."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from binfmtd import __version__
from binfmtd.config.parse import parse

CHART = Path(__file__).parents[3] / "packaging" / "helm" / "binfmtd"
REGION = re.compile(r"(<!-- values: from values\.schema\.json -->\n).*?(<!-- /values -->)", re.DOTALL)
LONGEST = 60  # characters of a default in the table
NOT_OURS = "global"


def schema() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return document


def leaves(properties: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the dotted path and the schema of each value."""
    for name, value in properties.items():
        if "properties" in value:
            yield from leaves(value["properties"], f"{path}{name}.")
        elif name != NOT_OURS:
            yield f"{path}{name}", value


def row(path: str, value: dict[str, Any]) -> str:
    kinds = value["type"] if isinstance(value["type"], list) else [value["type"]]
    default = json.dumps(value["default"])
    shown = f"`{default}`" if len(default) <= LONGEST else "see values.yaml"
    allowed = f" One of {', '.join(f'`{each}`' for each in value['enum'])}." if "enum" in value else ""
    return f"| `{path}` | {' or '.join(kinds)} | {shown} | {value['description']}{allowed} |"


def test_the_table() -> None:
    """The README has a row for each value; BINFMTD_WRITE_REFERENCE=1 writes the table anew."""
    rows = (row(path, value) for path, value in leaves(schema()["properties"]))
    wanted = "\n".join(["| value | type | default | is |", "| --- | --- | --- | --- |", *rows])
    readme = CHART / "README.md"
    new, replaced = REGION.subn(lambda found: f"{found[1]}{wanted}\n{found[2]}", readme.read_text(encoding="utf-8"))
    assert replaced == 1
    if os.environ.get("BINFMTD_WRITE_REFERENCE"):
        readme.write_text(new, encoding="utf-8")
    assert new == readme.read_text(encoding="utf-8"), "run with BINFMTD_WRITE_REFERENCE=1 after a change of the schema"


def test_no_unknown_value() -> None:
    """Each object of values rejects unknown keys, so that a misspelt value is an error."""

    def objects(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield value
        for each in value["properties"].values():
            if "properties" in each:
                yield from objects(each)

    found = list(objects(schema()))
    assert len(found) > 5
    assert [value for value in found if value.get("additionalProperties") is not False] == []


def test_the_version() -> None:
    """The chart has the version of this source, and installs it: appVersion is the image's tag."""
    chart = (CHART / "Chart.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", chart, re.MULTILINE) == [__version__]
    assert re.findall(r"^appVersion: (.*)$", chart, re.MULTILINE) == [__version__]


def test_the_versions_in_the_commands() -> None:
    """The README's commands for a registry name that version."""
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"binfmtd-(\d\S*)\.tgz|--version (\S+)", readme) == [(__version__, ""), ("", __version__)]


LISTEN = ['listen = "0.0.0.0:9427"', "[metrics]\nlisten='[::]:9427' # IPv6", 'metrics = { listen = "0.0.0.0:9427" }']
NO_LISTEN = ["", '#listen = "0.0.0.0:9427"', 'listen = "127.0.0.1:9427"', 'listen = "0.0.0.0:9428"']
IMAGES, NO_IMAGES = ["a", "r:5000/b/c"], ["", "r/a:0.1", "r/a@sha256:0", "r/a "]
INTERVALS = ["10s", "90s", "10m", "1m5s", "1h30m", "168h", "after-repair"]


@pytest.mark.parametrize(
    ("path", "accepted", "refused"),
    [
        # The kubelet probes the pod's address: without this key it would restart each daemon again and again.
        ("config", LISTEN, NO_LISTEN),
        ("image.repository", IMAGES, NO_IMAGES),
        ("emulators.image.repository", IMAGES, NO_IMAGES),
        # With "off" no label would be written; the daemon rejects less than 10 s.
        ("nodeFeatureDiscovery.probe", INTERVALS, ["", "off", "5s", "500ms", "0m", "10", "10 minutes"]),
        ("prometheus.interval", ["60s", "1m30s"], ["", "60", "1 m"]),
    ],
)
def test_patterns(path: str, accepted: list[str], refused: list[str]) -> None:
    """The schema's patterns match these values and no others; Helm searches for a pattern, as `re.search` does."""
    pattern = dict(leaves(schema()["properties"]))[path]["pattern"]
    assert [text for text in accepted if not re.search(pattern, text)] == []
    assert [text for text in refused if re.search(pattern, text)] == []


@pytest.mark.parametrize("interval", INTERVALS)
def test_intervals(interval: str) -> None:
    """The daemon accepts these intervals, too."""
    assert parse(f'probe = "{interval}"', "binfmtd.toml")["probe"]
