"""The program ``helm`` where there is none: Helm's own code as a library, behind helm's commands and options.

It has those that the tests and documents use.  The library comes as a package of Python (helm-python-sdk).  This file
is run as a program, so it imports no other one of the tests.  KUBECONFIG names the cluster.  Example:

    helm_program.py upgrade binfmtd CHART --namespace=binfmtd --set image.tag=0.1.1 --wait --timeout=3m
"""

import argparse
import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LIBRARY = "helm_python"
SECONDS = {"s": 1, "m": 60, "h": 3600}
DEFAULT_TIMEOUT = "5m"


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit status."""
    library = importlib.import_module(LIBRARY)
    parsed = _parser().parse_args(arguments)
    try:
        print(parsed.function(library, parsed))  # noqa: T201  a program prints
    except library.HelmError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201  a program prints
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="helm", allow_abbrev=False)
    commands = parser.add_subparsers(required=True)

    def command(name: str, function: Callable[[Any, argparse.Namespace], str], *words: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, allow_abbrev=False)
        added.set_defaults(function=function)
        for word in words:
            added.add_argument(word)
        added.add_argument("-n", "--namespace", default="default")
        return added

    for name, function in (("install", _install), ("upgrade", _upgrade)):
        release = command(name, function, "name", "chart")
        release.add_argument("-f", "--values", action="append", default=[])
        release.add_argument("--set", action="append", default=[])
        release.add_argument("--set-file", action="append", default=[])
        release.add_argument("--version")
        release.add_argument("--plain-http", action="store_true")
        release.add_argument("--wait", action="store_true")
        release.add_argument("--timeout", type=_seconds, default=DEFAULT_TIMEOUT)
        if name == "upgrade":
            release.add_argument("--install", action="store_true")
            release.add_argument("--reuse-values", action="store_true")
    rollback = command("rollback", _rollback, "name")
    rollback.add_argument("revision", nargs="?", type=int)
    uninstall = command("uninstall", _uninstall, "name")
    for release in (rollback, uninstall):
        release.add_argument("--wait", action="store_true")
        release.add_argument("--timeout", type=_seconds, default=DEFAULT_TIMEOUT)
    command("history", _history, "name").add_argument("-o", "--output", choices=["json"], required=True)
    package = command("package", _package, "chart")
    package.add_argument("-d", "--destination", default=".")
    package.add_argument("--version")
    command("push", _push, "archive", "remote").add_argument("--plain-http", action="store_true")
    pull = command("pull", _pull, "chart")
    pull.add_argument("-d", "--destination", default=".")
    pull.add_argument("--version")
    pull.add_argument("--plain-http", action="store_true")
    command("version", lambda library, _: f"Helm {library.helm_sdk_version()} as a library")
    return parser


def _seconds(duration: str) -> int:
    """Return the seconds of a duration such as 3m or 90s."""
    return sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)([smh])", duration))


def _cluster(library: Any, parsed: argparse.Namespace) -> Any:
    return library.Config(kubeconfig_path=os.environ["KUBECONFIG"], namespace=parsed.namespace)


def _values(library: Any, parsed: argparse.Namespace) -> dict[str, Any]:
    """Merge the values in helm's order: files, then --set, then --set-file."""
    merged: dict[str, Any] = {}
    for path in parsed.values:
        with open(path, encoding="utf-8") as file:
            merged = _merge(merged, library.values_from_yaml(file.read()))
    if parsed.set:
        merged = _merge(merged, library.parse_set_string(",".join(parsed.set)))
    for expression in parsed.set_file:
        merged = _merge(merged, library.parse_set_file(expression))
    return merged


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _options(parsed: argparse.Namespace) -> dict[str, Any]:
    return {
        "timeout": parsed.timeout,
        "wait": "watcher" if parsed.wait else None,
        "chart_version": parsed.version,
        "plain_http": parsed.plain_http,
    }


def _install(library: Any, parsed: argparse.Namespace) -> str:
    with _cluster(library, parsed) as cluster:
        release = cluster.install(parsed.chart, parsed.name, _values(library, parsed), **_options(parsed))
    return _summary(release)


def _upgrade(library: Any, parsed: argparse.Namespace) -> str:
    with _cluster(library, parsed) as cluster:
        if parsed.install:
            try:
                cluster.history(parsed.name)
            except library.HelmNotFoundError:
                return _install(library, parsed)
        options = _options(parsed) | {"reuse_values": parsed.reuse_values}
        release = cluster.upgrade(parsed.chart, parsed.name, _values(library, parsed), **options)
    return _summary(release)


def _summary(release: Mapping[str, Any]) -> str:
    keys = ("name", "namespace", "status", "revision")
    return "\n".join([*(f"{key.upper()}: {release[key]}" for key in keys), "NOTES:", release.get("notes", "")])


def _rollback(library: Any, parsed: argparse.Namespace) -> str:
    wait = "watcher" if parsed.wait else None
    with _cluster(library, parsed) as cluster:
        cluster.rollback(parsed.name, version=parsed.revision, timeout=parsed.timeout, wait=wait)
    return "Rollback was a success! Happy Helming!"


def _uninstall(library: Any, parsed: argparse.Namespace) -> str:
    wait = "watcher" if parsed.wait else None
    with _cluster(library, parsed) as cluster:
        done = cluster.uninstall(parsed.name, timeout=parsed.timeout, wait=wait)
    return f'release "{parsed.name}" uninstalled\n{done["info"]}'


def _history(library: Any, parsed: argparse.Namespace) -> str:
    with _cluster(library, parsed) as cluster:
        return json.dumps(cluster.history(parsed.name))


def _package(library: Any, parsed: argparse.Namespace) -> str:
    made = library.package(parsed.chart, destination=parsed.destination, version=parsed.version)
    return f"Successfully packaged chart and saved it to: {made}"


def _push(library: Any, parsed: argparse.Namespace) -> str:
    output: str = library.push(parsed.archive, parsed.remote, plain_http=parsed.plain_http)["output"]
    return output


def _pull(library: Any, parsed: argparse.Namespace) -> str:
    options = {"destination": parsed.destination, "version": parsed.version, "plain_http": parsed.plain_http}
    output: str = library.pull(parsed.chart, **options)["output"]
    return output


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
