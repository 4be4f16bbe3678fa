"""The time at which a requested reload reads the config: not while another program is writing it."""

import pytest

from binfmtd.daemon import config_source
from binfmtd.daemon.config_source import CONFIG_AGE, ConfigSource
from binfmtd.errors import ConfigError
from binfmtd.model.config import Config

CONFIG = Config(())


class Written:
    """A config with these ages, one for each look."""

    def __init__(self, *ages: float) -> None:
        self.ages = list(ages)
        self.source = ConfigSource(lambda: CONFIG, self.age, dict, began=0.0)

    def age(self) -> float:
        return self.ages.pop(0) if len(self.ages) > 1 else self.ages[0]


def test_an_old_config_is_read_at_once() -> None:
    written = Written(3600, 0.1)
    assert written.source.load_when_quiet().config is CONFIG
    assert written.ages == [0.1], "one look was enough"


def test_a_young_config_is_waited_for() -> None:
    written = Written(CONFIG_AGE - 0.01, CONFIG_AGE - 0.01, 3600, 0.1)
    assert written.source.load_when_quiet().config is CONFIG
    assert written.ages == [0.1]


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A config that changes without end is read all the same."""
    monkeypatch.setattr(config_source, "PATIENCE", 0.05)
    assert Written(CONFIG_AGE - 0.02).source.load_when_quiet().config is CONFIG


def test_a_file_from_the_future_is_not_waited_for() -> None:
    """A negative age is not waited for: the wall clock may have gone backwards."""
    written = Written(-86400, 0.1)
    assert written.source.load_when_quiet().config is CONFIG
    assert written.ages == [0.1]


def test_an_invalid_config_is_a_result() -> None:
    """The loop gets the error of an invalid config, to keep the config in force and to log it."""

    def load() -> Config:
        raise ConfigError("not valid")

    outcome = ConfigSource(load, lambda: 3600, dict, began=0.0).load_when_quiet().config
    assert isinstance(outcome, ConfigError)


@pytest.mark.parametrize(
    ("age", "changed"),
    [
        (9.0, True),
        (10.005, True),  # the kernel's clock for files lags behind
        (10.1, False),
        (0.0, False),  # unknown: then it would count as changed after each reading
        (-5.0, False),  # from the future
    ],
)
def test_a_change_since_the_reading(monkeypatch: pytest.MonkeyPatch, age: float, changed: bool) -> None:
    """A config that is younger than its reading may have changed since; one without a usable age has not."""
    monkeypatch.setattr(config_source, "since_boot", lambda: 110.0)
    assert Written(age).source.changed_since(100.0) is changed
