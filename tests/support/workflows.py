"""The shell steps of action.yml and of the workflows, run as GitHub's runner runs them.

Only what our files use is known: ``${{ ... }}`` in a step's ``env``, and an ``if`` that compares an input with a word.
A test gives each expression a value; one without is an error.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.cli import CHECKOUT
from support.programs import install

yaml = pytest.importorskip("yaml", reason="PyYAML is not here: `make test-containers` installs it")

ACTION = CHECKOUT / "action.yml"
WORKFLOWS = sorted((CHECKOUT / ".github/workflows").glob("*.yml"))
# `shell: bash`, by GitHub's documentation.
SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
_EXPRESSION = re.compile(r"\$\{\{ (.+?) \}\}")
_CONDITION = re.compile(r"inputs\.(\w+) == '(\w+)'")


class Step:
    """One step with a shell script."""

    def __init__(self, place: str, step: Mapping[str, Any]) -> None:
        self.place = place
        self.name: str = step["name"]
        self.script: str = step["run"]
        self._condition: str | None = step.get("if")
        self._environment: dict[str, str] = step.get("env", {})

    def applies(self, inputs: Mapping[str, str]) -> bool:
        """Evaluate the step's ``if``."""
        if self._condition is None:
            return True
        found = _CONDITION.fullmatch(self._condition)
        assert found is not None, self._condition
        return inputs[found[1]] == found[2]

    def environment(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of the step, with these values in place of the expressions."""
        return {
            name: _EXPRESSION.sub(lambda found: values[found[1]], str(text)) for name, text in self._environment.items()
        }

    def command(self, directory: Path) -> list[str]:
        """Write the script to a file, and return the command that runs it."""
        file = directory / f"{re.sub(r'[^a-z]+', '-', self.name.lower())}.sh"
        file.write_text(self.script)
        return [*SHELL, str(file)]


def action() -> dict[str, Any]:
    """Return action.yml."""
    document: dict[str, Any] = yaml.safe_load(ACTION.read_text())
    return document


def defaults() -> dict[str, str]:
    """Return the inputs of the action with their defaults."""
    return {name: each["default"] for name, each in action()["inputs"].items()}


def steps() -> list[Step]:
    """Return the steps with a script: of the action, then of the workflows."""
    found = [Step("action.yml", step) for step in action()["runs"]["steps"]]
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            found += [Step(path.name, step) for step in job.get("steps", ()) if "run" in step]
    return found


def step(place: str, name: str) -> Step:
    """Return the only step of this name in a file."""
    (found,) = (each for each in steps() if (each.place, each.name) == (place, name))
    return found


def stub(directory: Path, name: str, script: str) -> None:
    """Write a program for PATH."""
    directory.mkdir(exist_ok=True)
    install(directory / name, f"#!/bin/sh\n{script}\n".encode())


def on_path(directory: Path) -> dict[str, str]:
    """Return a PATH on which these programs come first."""
    return {"PATH": f"{directory}:{os.environ['PATH']}"}
