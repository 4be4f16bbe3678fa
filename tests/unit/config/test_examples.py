import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from binfmtd.config.build import DEFAULT_ENTRY, DEFAULT_FLAGS, DEFAULT_PATHS
from binfmtd.config.load import load
from binfmtd.config.parse import parse
from binfmtd.config.schema import (
    ArchitectureTable,
    ConfigFile,
    EmulatorsTable,
    HandlerTable,
    LabelsTable,
    MetricsTable,
)
from binfmtd.files.trust import Trust
from binfmtd.model.config import Config, Policy
from binfmtd.model.handler import Flags

Load = Callable[..., Config]

CONFIG = Path(__file__).parents[3] / "config"


@pytest.fixture(scope="module")
def example() -> str:
    return (CONFIG / "binfmtd.toml").read_text("utf-8")


@pytest.fixture(scope="module")
def uncommented(example: str) -> ConfigFile:
    return parse(re.sub(r"(?m)^#(?=[a-z\[])", "", example), "binfmtd.toml")


def test_the_example_as_it_is_changes_nothing(load_text: Load, example: str) -> None:
    """Copied without an edit, the example has the same effect as no config file."""
    copied, empty = load_text(example), load_text("")
    assert copied == empty


def test_the_example_shows_the_defaults(uncommented: ConfigFile) -> None:
    """Every commented default of the example is the real one."""
    # Without `sealed` it is neither of the two.
    tables = {"architectures", "include", "metrics", "labels", "emulators", "handlers", "sealed"}
    shown: dict[str, Any] = {key: value for key, value in uncommented.items() if key not in tables}
    arrays = {key: tuple(value) for key, value in shown.items() if isinstance(value, list)}
    assert Policy(**{**shown, **arrays}) == Policy()
    assert (uncommented["architectures"], uncommented["include"]) == (["all"], [])
    emulators = uncommented["emulators"]
    assert tuple(emulators["paths"]) == DEFAULT_PATHS
    assert (emulators["entry"], emulators["flags"]) == (DEFAULT_ENTRY, DEFAULT_FLAGS)


def test_the_example_shows_every_key(uncommented: ConfigFile) -> None:
    """The example has every key; extension and match cannot stand beside magic, so a comment describes them."""
    assert uncommented.keys() == ConfigFile.__optional_keys__
    assert uncommented["metrics"].keys() == MetricsTable.__optional_keys__
    assert uncommented["emulators"].keys() == EmulatorsTable.__optional_keys__
    shown = uncommented["emulators"]["by_architecture"].values()  # some keys exclude each other in one table
    assert {key for table in shown for key in table} == ArchitectureTable.__optional_keys__
    assert uncommented["labels"].keys() == LabelsTable.__optional_keys__
    assert uncommented["handlers"]["wasm"].keys() | {"extension", "match"} == HandlerTable.__optional_keys__


@pytest.mark.parametrize("path", sorted((CONFIG / "presets").glob("*.toml")), ids=lambda path: path.name)
def test_each_preset_loads(tmp_path: Path, path: Path) -> None:
    """A preset, copied to conf.d, is valid by itself, and brings no flag C."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / path.name).write_bytes(path.read_bytes())
    loaded = load(None, trust=Trust(os.geteuid()), default=str(tmp_path / "binfmtd.toml"))
    own = [spec for spec in loaded.specs if spec.architecture is None]
    assert own
    assert not any(Flags.C in spec.flags for spec in own)
    assert loaded.warnings == ()
