"""Small parts of the simulated loop: a logger that records, facts about the host, the file of pauses."""

from collections.abc import Callable
from typing import Any, Self

from binfmtd.daemon.interpreters.host_facts import Interpreters, paths_of
from binfmtd.daemon.state_files.pause_file import PauseFile
from binfmtd.kernel.writer import Wrote
from binfmtd.model.config import Config
from binfmtd.model.desired import Facts
from binfmtd.model.guard import NativeHeader
from binfmtd.model.pause import Pauses
from support.simulated_world import SimulatedWorld

_LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error"}


class RecordingLogger:
    """The methods of structlog's logger that the daemon calls."""

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world

    def bind(self, **_: object) -> Self:
        return self

    def log(self, level: int, event: str, **details: Any) -> None:
        entries = details.get("entries", [details["entry"]] if "entry" in details else [])
        self._world.add("log", f"{_LEVELS[level]} {event}", " ".join(sorted(entries)))

    def debug(self, event: str, **details: Any) -> None:
        self.log(10, event, **details)

    def info(self, event: str, **details: Any) -> None:
        self.log(20, event, **details)

    def warning(self, event: str, **details: Any) -> None:
        self.log(30, event, **details)

    def error(self, event: str, **details: Any) -> None:
        self.log(40, event, **details)


class SimulatedFacts:
    """HostFacts of a host on which no handler's match takes a native program."""

    header = NativeHeader(2, 1, 62)
    heads = (b"\x7fELF" + bytes(252),)
    interpreters: Interpreters  # the loop's own

    def use(self, interpreters: Interpreters) -> None:
        self.interpreters = interpreters

    def use_probed(self, _: object) -> bool:
        return False

    def gather(self, config: Config, _: object) -> Facts:
        return Facts(self.interpreters.facts(paths_of(config)), header=self.header, heads=self.heads)


class _PausedFile:
    """The file paused.json, read from the world."""

    problem: str | None = None

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world

    def read(self, _: object, __: str) -> Pauses:
        return self._world.paused


class SimulatedPauseFile(PauseFile):
    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(None, "boot")
        self.watched = {"/state": {"paused.json"}}
        self._file = _PausedFile(world)  # type: ignore[assignment]


class AtOnce:
    """BoundedCalls without a thread."""

    def __init__(self, seconds: float, starting: float = 0.0) -> None: ...

    def call(self, _: str, work: Callable[[], Any], otherwise: object) -> Any:  # noqa: ARG002
        return work()


class Unreachable:
    """A writer whose path leads to another instance."""

    def register(self, *_: object) -> list[OSError | None]:
        raise FileNotFoundError

    def take_wrote(self) -> list[Wrote]:
        return []
