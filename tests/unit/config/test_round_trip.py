"""The output of `import`, read as a config."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.registrations import NAMES, REGISTRATIONS

from binfmtd.config import build, merge
from binfmtd.config.load import load
from binfmtd.config.parse import parse
from binfmtd.errors import FormatError
from binfmtd.files.trust import Trust
from binfmtd.formats.toml import Found, check_toml, render_toml
from binfmtd.model.handler import Registration


def _fits(found: Found) -> bool:
    try:
        check_toml(found.name, found.registration)
    except FormatError:
        return False
    return True


FOUND = st.builds(Found, NAMES, REGISTRATIONS, st.text(max_size=9), st.booleans()).filter(_fits)


@given(handlers=st.lists(FOUND, max_size=5, unique_by=lambda found: found.name))
def test_what_is_imported_is_declared(handlers: list[Found]) -> None:
    """The config declares exactly what was imported: names, registrations, order, and what is disabled."""
    parsed = parse(render_toml(handlers), "f")
    config = build.build(merge.merge([("f", parsed)]), ("f",))
    assert config.warnings == ()
    assert [(d.name, Registration(d.match, d.interpreters[0], d.flags), d.enabled) for d in config.specs] == [
        (found.name, found.registration, found.enabled) for found in handlers
    ]


def test_nothing_imported_declares_nothing(tmp_path: Path) -> None:
    """An empty import declares nothing, unlike the empty config, which would mean "all"."""
    (tmp_path / "c.toml").write_text(render_toml([]))
    assert load(str(tmp_path / "c.toml"), trust=Trust(os.geteuid())).specs == ()
