"""Random scenarios for the loop: what other programs and the administrator do to a small set of handlers.

A scenario follows from its seed alone.  Random numbers are drawn before the run, so what the daemon does has no
influence on what is drawn.
"""

from collections.abc import Callable
from random import Random

from binfmtd.errors import ConfigError
from binfmtd.model.config import Config, OnStop, Policy, Shadowed, StandInPolicy, Unmanaged
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Extension, Magic
from support.simulated import declared
from support.simulated_loop import SimulatedLoop

_PATHS = ("/i/one", "/i/two", "/i/three")
_THEIRS = "/their/interpreter"
_HANDLERS = (
    Handler("a", Registration(Magic(b"A"), _PATHS[0], Flags.NONE)),
    Handler("ab", Registration(Magic(b"AB"), _PATHS[1], Flags.NONE)),
    Handler("abc", Registration(Magic(b"ABC"), _PATHS[0], Flags.F)),
    Handler("d", Registration(Magic(b"D"), _PATHS[1], Flags.F)),
    Handler("e", Registration(Magic(b"E"), _PATHS[2], Flags.NONE)),
    Handler("f", Registration(Magic(b"F", offset=2), _PATHS[2], Flags.F | Flags.P), priority=1),
    Handler("jar", Registration(Extension("jar"), _PATHS[0], Flags.NONE), priority=1),
    Handler("py", Registration(Extension("py"), _PATHS[2], Flags.F)),
)
_FOREIGN = (
    ("theirs", Registration(Magic(b"A"), _THEIRS, Flags.NONE)),
    ("theirs-above", Registration(Magic(b"ABC"), _THEIRS, Flags.F)),
    ("theirs-too", Registration(Magic(b"DX"), _THEIRS, Flags.F)),
    ("other", Registration(Magic(b"Q"), _THEIRS, Flags.F)),
)
# Other gaps than the daemon's own intervals, so that it does not depend on a microsecond which comes first.
_GAPS = (0.0004, 0.0013, 0.007, 0.013, 0.027, 0.11, 0.43, 1.3, 3.7, 13.0)
_QUIET = 75.0  # seconds at the end, after which each backoff is over


def run_scenario(seed: int) -> SimulatedLoop:
    """Return the loop of this scenario after its run."""
    return _Scenario(seed).run()


class _Scenario:
    def __init__(self, seed: int) -> None:
        self._random = random = Random(seed)  # noqa: S311  no secret
        self._handlers = self._some_handlers()
        self.loop = SimulatedLoop(
            self._config(),
            delay=random.choice((0.0, 0.0, 0.0017, 0.067)),
            write_seconds=random.choice((0.0001, 0.0001, 0.0031)),
            reports_removals=random.random() < 0.7,
            missing=[random.choice(_PATHS)] if random.random() < 0.2 else [],
        )
        self._at = 0.9

    def run(self) -> SimulatedLoop:
        acts = self._acts()
        weights = [weight for weight, _ in acts]
        for _ in range(self._random.randint(5, 11)):
            self._at += self._random.choice(_GAPS) * self._random.uniform(0.9, 1.1)
            ((_, draw),) = self._random.choices(acts, weights)
            draw()
        self.loop.run(self._at + _QUIET)
        return self.loop

    def _some_handlers(self) -> list[Handler]:
        chosen = self._random.sample(_HANDLERS, self._random.randint(2, 4))
        return [each._replace(enabled=self._random.random() < 0.93) for each in chosen]

    def _config(self) -> Config:
        random = self._random
        policy = Policy(
            unmanaged=random.choice((Unmanaged.KEEP, Unmanaged.KEEP, Unmanaged.KEEP, Unmanaged.REMOVE)),
            restore=random.choice(((), ("their*",))),
            shadowed=random.choice(tuple(Shadowed)),
            on_stop=random.choice(tuple(OnStop)),
            resync=random.choice((300.0, 300.0, 17.0)),
            settle=random.choice((0.02, 0.02, 0.1)),
            reload_on_change=random.random() < 0.3,
            stand_ins=random.choice(tuple(StandInPolicy)),
        )
        return Config(declared(self._handlers), policy)

    def _does(self, act: Callable[..., object], *arguments: object, after: float = 0.0) -> None:
        self.loop.at(self._at + after, act, *arguments)

    def _acts(self) -> list[tuple[int, Callable[[], None]]]:
        """Return how often each kind of act is drawn, and the method that puts it into the agenda."""
        loop = self.loop
        return [
            (8, lambda: self._does(loop.removes, self._handler().name)),
            (3, lambda: self._does(loop.disables, self._handler().name)),
            (1, lambda: self._does(loop.touches, self._handler().name)),
            (4, lambda: self._does(loop.removes_one_of_all, self._random.randrange(100))),
            (3, lambda: self._does(loop.registers, *self._handler()[:2])),
            (4, lambda: self._does(loop.registers, *self._random.choice(_FOREIGN))),
            (5, lambda: self._does(loop.flushes)),
            (2, lambda: self._does(loop.switches_off)),
            (1, lambda: self._does(loop.writes_endlessly, self._handler().name, 0.303)),
            (1, lambda: self._does(loop.overflows)),
            (1, lambda: self._does(loop.mounts_elsewhere)),
            (1, lambda: self._does(loop.reloads, ConfigError("/etc/binfmtd.toml: it is invalid"))),
            (2, lambda: self._does(loop.installs, self._random.choice(_PATHS))),
            (1, lambda: self._does(loop.pauses, [], self._seconds())),
            (3, lambda: self._does(loop.pauses, [self._handler().name], self._seconds())),
            (2, lambda: self._does(loop.resumes, self._random.choice(([self._handler().name], [])))),
            (2, lambda: self._does(self._random.choice((loop.mounts_another, loop.mounts_another, loop.covers)))),
            (6, self._replace),
            (4, self._exchange),
            (3, self._flush_and_register),
            (2, self._insist),
            (4, self._reload),
            (1, self._unmount),
            (1, self._uninstall),
            (1, self._refuse),
        ]

    def _handler(self) -> Handler:
        return self._random.choice(self._handlers)

    def _seconds(self) -> float:
        return self._random.choice((0.31, 4.3, float("inf")))

    def _replace(self) -> None:
        name, registration, *_ = self._handler()
        self._does(self.loop.replaces, name, registration._replace(interpreter=_THEIRS))

    def _exchange(self) -> None:
        """Remove an entry and register it again, as two commands of a shell."""
        name, registration, *_ = self._handler()
        new = registration._replace(interpreter=self._random.choice((_THEIRS, registration.interpreter)))
        self._does(self.loop.removes, name)
        self._does(self.loop.registers, name, new, after=self._random.choice((0.0007, 0.0031, 0.053)))

    def _flush_and_register(self) -> None:
        """Remove everything and register some entries, as systemd-binfmt does."""
        name, registration, *_ = self._handler()
        self._does(self.loop.flushes)
        self._does(self.loop.registers, name, registration._replace(interpreter=_THEIRS), after=0.0011)
        self._does(self.loop.registers, *self._random.choice(_FOREIGN), after=0.0012)

    def _insist(self) -> None:
        """Remove an entry again and again."""
        name = self._handler().name
        for turn in range(13):
            self._does(self.loop.removes, name, after=turn * 0.137)
        self._at += 12 * 0.137

    def _reload(self) -> None:
        if self._random.random() < 0.5:
            self._handlers = self._some_handlers()
        self._does(self.loop.reloads if self._random.random() < 0.7 else self.loop.edits, self._config())

    def _unmount(self) -> None:
        self._does(self.loop.unmounts)
        self._does(self.loop.mounts_another, after=self._random.choice((0.0023, 1.7)))

    def _uninstall(self) -> None:
        path = self._random.choice(_PATHS)
        self._does(self.loop.uninstalls, path)
        self._does(self.loop.installs, path, after=self._random.choice((0.0019, 0.29, 7.7)))

    def _refuse(self) -> None:
        name = self._handler().name
        self._does(self.loop.refuses_to_register, name)
        self._does(self.loop.accepts, name, after=self._random.choice((0.37, 5.9)))
