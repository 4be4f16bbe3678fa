"""Modules that are loaded when they are first used."""

import subprocess
import sys

import pytest

BEGIN = "import sys; from binfmtd.report.late_module import import_late; "


def prints(code: str) -> str:
    command = [sys.executable, "-P", "-c", BEGIN + code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("use", ["uuid.uuid4", "uuid.__file__", "__import__('uuid', fromlist=['UUID']).UUID"])
def test_the_first_use_loads_it(use: str) -> None:
    """An import succeeds without loading the module; the first use loads it, also for those who import it later."""
    code = f"import_late('uuid'); import uuid; early = 'platform' in sys.modules; {use}; "
    assert prints(code + "print(early, sys.modules['uuid'].__file__ == uuid.__file__)") == "False True"


def test_a_part_of_it_loads_it() -> None:
    """To import a module of a package that is late loads the package."""
    assert (
        prints("import_late('json'); import json.tool; print(json.loads('[1]'), json.tool.__name__)") == "[1] json.tool"
    )


def test_it_is_missing() -> None:
    """The first use of a module that does not exist fails as its import would."""
    code = (
        "import_late('no_such')\nimport no_such\ntry: no_such.name\nexcept ModuleNotFoundError as error: print(error)"
    )
    assert prints(code) == "No module named 'no_such'"


def test_what_is_loaded_stays() -> None:
    """A module that is loaded already is not replaced."""
    assert prints("import uuid; import_late('uuid'); print(sys.modules['uuid'] is uuid)") == "True"


def test_the_log_needs_no_asyncio() -> None:
    """structlog, as the daemon uses it, does not load asyncio and OpenSSL: they would take a quarter of its memory."""
    code = (
        "from binfmtd.report import log; log.set_up('info', 'logfmt', sys.stdout); log.get_logger().info('stopped'); "
    )
    assert prints(code + "print({'ssl', 'asyncio.events', 'platform'} & {*sys.modules})").splitlines()[-1] == "set()"
