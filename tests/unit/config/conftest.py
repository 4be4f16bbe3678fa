import os
from collections.abc import Callable
from pathlib import Path

import pytest

from binfmtd.config.load import load
from binfmtd.files.trust import Trust
from binfmtd.model.config import Config

Load = Callable[..., Config]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the path of the config file; a test may make conf.d beside it."""
    return tmp_path / "binfmtd.toml"


@pytest.fixture
def load_text(config: Path) -> Load:
    """Return a function that writes the config file, and further ones under conf.d, and loads them."""

    def write_and_load(text: str, **more: str) -> Config:
        config.write_text(text, "utf-8")
        for name, content in more.items():
            config.with_name("conf.d").mkdir(exist_ok=True)
            (config.with_name("conf.d") / f"{name}.toml").write_text(content, "utf-8")
        return load(str(config), trust=Trust(os.geteuid()))

    return write_and_load
