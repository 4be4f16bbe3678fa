"""After random actions against a real daemon on a real instance, the desired state stands once it is quiet.

``make chaos`` does 10,000 steps with a new seed each time, ``make kernel-slow`` 200 steps with a fixed seed. A model of
the test's own (support.chaos_model) computes what should stand.
"""

import itertools
import secrets
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from support import Times
from support.chaos_model import ANY_NEW_NAME, Handler, Model, Policy, Seen
from support.chaos_strategies import (
    BAD,
    NAMES,
    OURS,
    PROGRAMS,
    THEIRS,
    declared,
    declared_at_first,
    foreign,
    moments,
    mostly_not,
    names,
    numbers,
    others,
    policies,
    there_at_first,
)
from support.chaos_world import World
from support.programs import exits_with
from support.waiting import wait_until

STEPS = 10_000
PARTS = 10_000  # of a run, at most
STEPS_EACH = 50  # on one instance, including steps that find nothing to act on
SECONDS = 30  # until it is quiet, on a busy machine
ROUNDS = 10  # of reading the entries until they no longer change

SETTINGS = settings(
    stateful_step_count=STEPS_EACH,
    derandomize=False,  # the seed decides
    database=None,
    phases=[Phase.generate],  # to shrink would take many minutes; the trace has to do
    suppress_health_check=list(HealthCheck),
    verbosity=Verbosity.quiet,  # the trace shows more
)


class Chaos(RuleBasedStateMachine):
    """The steps; most of them begin before the daemon has finished with the previous ones."""

    steps = 0  # of all machines

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(prefix="chaos-")
        self._trace: list[str] = []
        self._failed = False
        self.world = World(Path(self._directory.name), OURS, THEIRS)
        self.model = Model({}, Policy(), dict(self.world.interpreters))

    def teardown(self) -> None:
        try:
            if not self._failed:
                self.quiet()
        finally:
            self.world.close()
            self._directory.cleanup()

    def _did(self, *what: object) -> None:
        type(self).steps += 1
        self._trace.append(" ".join(map(str, what)))

    def _standing(self, which: int) -> list[str]:
        """Return one of the names that should stand, in a list; an empty list if none should."""
        names = sorted(self.model.expected())
        return [names[which % len(names)]] if names else []

    def _here(self, handler: Handler) -> Handler:
        """Return the handler with its interpreter's path in this world."""
        return replace(handler, interpreter=self.world.path(handler.interpreter))

    @initialize(given=declared_at_first, policy=policies, already=there_at_first)
    def begin(self, given: dict[str, Handler], policy: Policy, already: dict[str, Handler]) -> None:
        self._configure({name: self._here(handler) for name, handler in given.items()}, policy)
        for name, handler in already.items():
            self._put(name, handler)

    # The quiet moment

    def quiet(self) -> None:
        """Remove all obstacles and wait until the state is as expected. Raises AssertionError with the trace."""
        self._trace.append("-- quiet")
        try:
            self._until_quiet()
        except AssertionError as error:
            self._failed = True
            text = "\n".join([str(error), "steps:", *self._trace, "log:", self.world.log()])
            text = text.replace(f"{self._directory.name}/bin/", "").replace(NAMES[-1], "LONG")
            text = text.encode("utf-8", "backslashreplace").decode()  # names need not be UTF-8
            raise AssertionError(text) from None

    def _until_quiet(self) -> None:
        self.world.clear()
        self.world.start()
        seen = self._all_in_order()
        while seen.status["state"] == "contended":  # another test covers its pauses
            self.world.kill()
            self.world.start()
            seen = self._all_in_order()
        statuses = self.world.execute(PROGRAMS)
        for _ in range(ROUNDS):
            if self.world.listed() == seen.listed and self.world.entries() == seen.entries:
                break
            # The daemon had not seen the last step yet, for example an interpreter that was removed and created again.
            seen = self._all_in_order()
            statuses = self.world.execute(PROGRAMS)
        for (name, content), status in zip(PROGRAMS.items(), statuses, strict=True):
            expected, _ = self.model.serving(seen, name, content)
            assert status == expected, f"{name} ended with {status} instead of {expected}: {seen.text()}"
        self.model.settle(seen)

    def _all_in_order(self) -> Seen:
        differences: list[str] = []

        def look() -> Seen | None:
            seen = self.world.look()
            differences[:] = ["the reload is not done"] if seen is None else self.model.differences(seen)
            if seen is not None and not differences:  # the status may be from before the last step
                differences.extend(w for name in PROGRAMS for w in self.model.serving(seen, name, PROGRAMS[name])[1])
            return None if differences else seen

        try:
            found = wait_until(look, SECONDS, "quiet")
        except AssertionError:
            raise AssertionError("\n".join(differences)) from None
        assert found is not None
        return found

    def quiet_if(self, *names: str) -> None:
        """Wait for quiet if the effect of a step on these names depends on what the daemon has seen so far."""
        if self.model.fickle.intersection(names) or self.model.lost.keys() & {*names}:
            self.quiet()

    @rule()
    def all_quiet(self) -> None:
        """Add no step. By its name it is the simplest rule, of which hypothesis makes its whole first example."""
        self.quiet()

    # Changes to entries by other programs

    @rule(which=numbers)
    def remove(self, which: int) -> None:
        for name in self._standing(which):
            restorable = name not in self.model.handlers and self.model.policy.restores(name)
            if restorable:  # the daemon has to see it before it is removed, and the removal, which is no flush
                self.quiet()
            self.quiet_if(name)
            self._did("remove", name)
            self.world.write(name, b"-1")
            self.model.removed(name)
            if restorable:
                self.quiet()

    @rule()
    def flush(self) -> None:
        self.quiet_if(*self.model.fickle)
        self._did("flush")
        self.world.write("status", b"-1")
        self.model.flushed()

    @rule(which=numbers, enabled=mostly_not)
    def switch(self, which: int, enabled: bool) -> None:
        for name in self._standing(which):
            self.quiet_if(name)
            self._did("switch", name, enabled)
            self.world.write(name, b"1" if enabled else b"0")
            self.model.switched(name, enabled=enabled)

    @rule(enabled=mostly_not)
    def switch_everything(self, enabled: bool) -> None:
        self._did("switch everything", enabled)
        self.world.write("status", b"1" if enabled else b"0")

    @rule(name=names, handler=others)
    def replace(self, name: str, handler: Handler) -> None:
        """Replace an entry, ours or a foreign one, by a foreign handler under the same name."""
        self.quiet_if(name, ANY_NEW_NAME)
        self._replace(name, self._here(handler))

    @rule(which=numbers)
    def register_the_same(self, which: int) -> None:
        for name in self._standing(which):
            if name in self.model.handlers:
                self.quiet_if(name)
                self._replace(name, self.model.handlers[name])

    def _replace(self, name: str, handler: Handler) -> None:
        self._did("replace", name, handler)
        self.world.write(name, b"-1")
        self.model.removed(name)
        if entry := self.world.put(name, handler):
            self.model.put(name, entry)

    @rule(name=foreign, handler=others)
    def put(self, name: str, handler: Handler) -> None:
        """Register a foreign entry; many of these take files of our handlers."""
        self.quiet_if(name, *self.model.fickle)
        self._put(name, handler)

    def _put(self, name: str, handler: Handler) -> None:
        self._did("put", name, handler)
        if entry := self.world.put(name, self._here(handler)):
            self.model.put(name, entry)

    # Changes to interpreters

    @rule(name=st.sampled_from(OURS), how=st.sampled_from(["rename", "remove and create", "mend"]))
    def upgrade(self, name: str, how: str) -> None:
        """Install another program at the path; or, to mend it, give it back its mode."""
        self.quiet_if(*self.model.fickle)
        self._did("upgrade", name, how)
        if how == "mend":
            self.world.mend(self.world.path(name))
        else:
            self.world.upgrade(self.world.path(name), by_rename=how == "rename")
        self._look_at(name)

    @rule(name=st.sampled_from(OURS), how=st.sampled_from(["unlink", "chmod", "untrusted"]))
    def spoil(self, name: str, how: str) -> None:
        if self.world.interpreters[self.world.path(name)].state == "good":
            self.quiet()  # or it may be removed before the kernel has opened it for F
            self._did("spoil", name, how)
            self.world.spoil(self.world.path(name), how)
            self._look_at(name)

    def _look_at(self, name: str) -> None:
        path = self.world.path(name)
        self.model.changed(path, self.world.interpreters[path])

    # Changes by the administrator

    @rule(
        changes=st.dictionaries(names, st.none() | declared, max_size=3),
        policy=st.none() | policies,
        backwards=st.booleans(),
        by=st.sampled_from(["reload", "reload", "reload", "another daemon"]),
    )
    def configure(self, changes: dict[str, Handler | None], policy: Policy | None, backwards: bool, by: str) -> None:
        """Change, add and remove some handlers; of two with equal priority the later declared one wins."""
        self.quiet()
        found = dict(self.model.handlers)
        for name, handler in changes.items():
            found.pop(name, None)
            if handler is not None:
                found[name] = self._here(handler)
        if by == "another daemon":
            self._did("kill")
            self.world.kill()
            self.model.killed()
        self._configure(dict(reversed(found.items())) if backwards else found, policy or self.model.policy)

    def _configure(self, found: dict[str, Handler], policy: Policy) -> None:
        self._did("configure", found, policy)
        self.model.declared(found, policy)
        self.world.configure(found, policy)
        self.world.reload()

    @rule(text=st.sampled_from(BAD))
    def configure_badly(self, text: str) -> None:
        self.quiet()
        self._did("configure badly", repr(text))
        self.world.reload_refused(text)

    @rule(how=st.sampled_from(["kill", "kill", "terminate"]), after=moments)
    def end_the_daemon(self, how: str, after: float) -> None:
        """End the daemon; the next quiet moment, which may be some steps away, starts it again."""
        if how == "kill":
            self._did(how, after)
            time.sleep(after)  # in the middle of a pass, perhaps
            self.world.kill()
            self.model.killed()
        else:
            self.quiet()
            self._did(how)
            self.world.terminate()
            self.model.stopped()
            assert self.world.entries() == self.model.standing, "after SIGTERM"

    # Obstacles for the daemon until the next quiet moment

    @rule(how=st.sampled_from(["pause", "cover", "make_read_only"]), after=moments)
    def hinder(self, how: str, after: float) -> None:
        self._did(how, after)
        time.sleep(after)  # in the middle of a pass, perhaps
        getattr(self.world, how)()

    @rule(noticed=st.booleans())
    def mount_another_instance(self, noticed: bool) -> None:
        self.quiet_if(*self.model.fickle)
        self._did("another instance", noticed)
        self.world.another_instance(noticed=noticed)
        self.model.flushed()


@pytest.mark.usefixtures("private_instances")
def test_chaos(request: pytest.FixtureRequest, times: Times) -> None:
    """After any sequence of steps, the desired state stands in the end and no foreign entry has changed."""
    exits_with(1)  # or skip
    number = request.config.getoption("--seed")
    number = secrets.randbelow(2**32) if number == "random" else int(number)
    steps = request.config.getoption("--steps") or times(STEPS)
    again = f"make chaos SEED={number} STEPS={steps}"
    print(f"\n{again}")
    Chaos.steps = 0
    began = time.monotonic()
    for part in itertools.count():
        # The first example is the simplest, and does hardly anything.
        examples = 1 + min(20, max(1, (steps - Chaos.steps) // STEPS_EACH))
        try:
            one = seed(number * PARTS + part)(Chaos)  # no two runs share one
            run_state_machine_as_test(one, settings=settings(SETTINGS, max_examples=examples))
        except BaseException as error:
            error.add_note(f"after {Chaos.steps} steps; to run it again: {again}")
            raise
        if Chaos.steps >= steps:
            break
    print(f"{Chaos.steps} steps in {time.monotonic() - began:.0f} s")
