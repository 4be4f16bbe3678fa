"""When a requested reload reads the config."""

from binfmtd.daemon.reload_request import CONFIG_AGE, PATIENCE, ReloadRequest


def test_nobody_asked() -> None:
    """Without a request nothing is due, ever."""
    request = ReloadRequest()
    assert request.due_at == float("inf")
    assert not request.take(10, 3600)


def test_an_old_config_is_read_at_once_and_once() -> None:
    """Quiet is counted from the last change, not from the request."""
    request = ReloadRequest()
    request.make(10)
    assert request.take(10, 3600)
    assert not request.take(10, 3600)


def test_a_young_config_is_waited_for() -> None:
    """While somebody may still be writing, it is not read; the request stays open until it is old enough."""
    request = ReloadRequest()
    request.make(10)
    assert not request.take(10, 0.05)
    assert request.due_at == 10 + CONFIG_AGE - 0.05
    assert not request.take(10.1, 3600), "not before its time"
    assert request.take(request.due_at, CONFIG_AGE)


def test_patience_ends() -> None:
    """A config that never holds still is read all the same, counted from the first of several requests."""
    request = ReloadRequest()
    request.make(10)
    request.make(11)
    assert not request.take(11.5, 0.01)
    request.make(10 + PATIENCE)
    assert request.take(10 + PATIENCE, 0.01)


def test_a_file_from_the_future_is_not_waited_for() -> None:
    """The clock on the wall may have gone backwards: a negative age says nothing."""
    request = ReloadRequest()
    request.make(10)
    assert request.take(10, -86400)
