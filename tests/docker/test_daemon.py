"""The daemon as a container of a real Docker Engine: restart policies, health, the end, and least privileges.

Foreign programs are executed all the while where that is the point: none may fail.
"""

import json
from pathlib import Path

import pytest
from support.cli import Result, run
from support.documents import fragments
from support.engine import Engine, StartEngine
from support.instance import MOUNT_POINT
from support.waiting import wait_until

from binfmtd.model.stand_in import is_stand_in, stand_in_name

pytestmark = pytest.mark.docker

NAME = "binfmtd"
# The README's line.
RUN = next(fragment.text for fragment in fragments("README.md") if " binfmtd run " in fragment.text)
RUN_WORDS = tuple(RUN.partition("#")[0].split()[1:])


@pytest.fixture
def config(engine: Engine) -> Path:
    """Return the config of the daemon, in /etc/binfmtd of the engine's machine."""
    file = engine.root / "etc" / "binfmtd" / "binfmtd.toml"
    file.parent.mkdir()
    file.write_text('architectures = ["arm64", "arm"]\n')
    return file


def start(engine: Engine, *options: str, command: tuple[str, ...] = RUN_WORDS) -> None:
    """Start the daemon with these options before the image's name, and wait until Docker calls it healthy."""
    engine.checked(*command[:-2], *options, *command[-2:])
    engine.wait_healthy(NAME)


def binfmtd(engine: Engine, *arguments: str) -> Result:
    """Run ``docker exec binfmtd binfmtd ARGUMENT...``."""
    return engine.docker("exec", NAME, "binfmtd", *arguments)


BIND = ("-v", "/etc/binfmtd:/etc/binfmtd:ro")


def remove_and_wait(engine: Engine, name: str) -> None:
    """Remove an entry, and wait until the daemon has registered it again."""
    before = engine.instance.inode(name)
    engine.instance.remove(name)
    engine.instance.wait_registered_anew(name, before, 30)


def crash(engine: Engine) -> int:
    """Kill process 1 of the container, and wait until Docker has started it again; return the new process's number."""
    before = engine.process_of(NAME)
    assert engine.run("kill", "-KILL", str(before)).status == 0
    return wait_for_another(engine, before)


def wait_for_another(engine: Engine, before: int) -> int:
    """Wait until another process than this is process 1 of the container; return its number."""
    return wait_until(lambda: (now := engine.process_of(NAME)) not in (0, before) and now, 60, "the container again")


@pytest.mark.usefixtures("config")
def test_repairs(engine: Engine, arm64: Path) -> None:
    """The README's line keeps the handlers; removals by name break nothing that runs."""
    start(engine, *BIND)
    with engine.executing(arm64) as executing:
        for _ in range(5):
            remove_and_wait(engine, "qemu-aarch64")
        executing.wait_for_more()


def test_reload_keeps_the_restart_policy(engine: Engine, arm64: Path, config: Path) -> None:
    """``docker exec binfmtd binfmtd reload`` loads a config, reports a bad one, and Docker restarts it as before."""
    start(engine, *BIND)
    with engine.executing(arm64):
        config.write_text('architectures = ["arm64", "riscv64"]\n')
        assert binfmtd(engine, "reload").status == 0
        assert set(engine.instance.names()) == {"qemu-aarch64", "qemu-riscv64"}
        config.write_text("architecturez = []\n")
        rejected = binfmtd(engine, "reload")
        assert rejected.status == 1
        assert "architecturez" in rejected.message
        config.write_text('architectures = ["arm64", "riscv64"]\n')
        crash(engine)
        engine.wait_healthy(NAME)
    assert set(engine.instance.names()) == {"qemu-aarch64", "qemu-riscv64"}


def test_a_version_in_a_volume(engine: Engine, arm64: Path, config: Path) -> None:
    """The daemon uses the emulators of a version in a volume, and each switch is a reload without a failure."""
    volume = ["--volume=emulators:/var/lib/binfmtd/emulators"]
    engine.checked("volume", "rm", "--force", "emulators")  # from an earlier run: the engine's data stay in build/
    added = engine.checked("run", "--rm", *volume, "binfmtd", "emulators", "import", "/usr/bin", "--name", "first")
    assert added.stdout.startswith("added first: ")
    config.write_text('architectures = ["arm64"]\n[emulators]\nversion = "first"\n')
    start(engine, *BIND, *volume)
    with engine.executing(arm64):
        for version, interpreter in (
            ("first", "/var/lib/binfmtd/emulators/first/qemu-aarch64"),
            ("system", "/usr/bin/qemu-aarch64"),
            ("first", "/var/lib/binfmtd/emulators/first/qemu-aarch64"),
        ):
            config.write_text(f'architectures = ["arm64"]\n[emulators]\nversion = "{version}"\n')
            assert binfmtd(engine, "reload").status == 0
            assert f"interpreter {interpreter}\n" in engine.instance.read("qemu-aarch64")


@pytest.mark.usefixtures("config")
def test_a_signal_by_docker_ends_the_restart_policy(engine: Engine) -> None:
    """docs/containers.md warns of ``docker kill -s HUP``: after that Docker restarts it only with dockerd."""
    start(engine, *BIND)
    engine.checked("kill", "-s", "HUP", NAME)
    assert binfmtd(engine, "wait", "arm64", "--timeout", "30s").status == 0, "the signal itself reloads"
    assert engine.run("kill", "-KILL", str(engine.process_of(NAME))).status == 0
    wait_until(lambda: engine.inspect(NAME, "{{.State.Status}}") == "exited", 30, "the end")
    engine.stop()
    assert engine.run("pgrep", "-f", "binfmtd run").status != 0, "Docker has not started it again"
    engine.start()
    engine.wait_healthy(NAME)


@pytest.mark.usefixtures("config")
def test_dockerd_restarts(engine: Engine, arm64: Path) -> None:
    """When dockerd is stopped and started, the container comes back; its entries serve all the while."""
    start(engine, *BIND)
    with engine.executing(arm64):
        engine.stop()
        engine.start()
        engine.wait_healthy(NAME)
        remove_and_wait(engine, "qemu-arm")


@pytest.mark.usefixtures("config")
def test_dockerd_is_killed(engine: Engine, arm64: Path) -> None:
    """When dockerd has crashed and is started again, the container comes back; its entries serve all the while."""
    start(engine, *BIND)
    before = engine.process_of(NAME)
    with engine.executing(arm64):
        engine.stop("KILL")
        engine.start()
        wait_for_another(engine, before)
        engine.wait_healthy(NAME)


def test_live_restore(start_engine: StartEngine, arm64: Path) -> None:
    """With live-restore the daemon goes on while dockerd is away: it repairs, and is the same process afterwards."""
    engine = start_engine(settings={"live-restore": True})
    start(engine)
    process = engine.process_of(NAME)
    with engine.executing(arm64):
        engine.stop()
        before = engine.instance.inode("qemu-aarch64")
        engine.instance.remove("qemu-aarch64")
        engine.instance.wait_registered_anew("qemu-aarch64", before, 30)
        engine.start()
    assert engine.process_of(NAME) == process
    assert binfmtd(engine, "status", "--check").status == 0


def test_health(engine: Engine, config: Path) -> None:
    """Docker calls the container unhealthy while a handler waits, and healthy when it is in order again."""
    quick = ("--health-interval=1s", "--health-start-period=0s", "--health-retries=1")
    start(engine, *BIND, *quick)
    config.write_text(
        'architectures = ["arm"]\n[handlers.waits]\nextension = "x"\ninterpreter = "/nonexistent"\nflags = "F"\n'
    )
    assert binfmtd(engine, "reload").status == 0
    wait_until(lambda: engine.inspect(NAME, "{{.State.Health.Status}}") == "unhealthy", 60, "unhealthy")
    config.write_text('architectures = ["arm"]\n')
    assert binfmtd(engine, "reload").status == 0
    engine.wait_healthy(NAME)


@pytest.mark.usefixtures("config")
def test_stop(engine: Engine, arm64: Path) -> None:
    """``docker stop`` ends it by SIGTERM, with 0 and not by a kill ten seconds later; its entries stay and serve."""
    start(engine, *BIND)
    with engine.executing(arm64):
        engine.checked("stop", NAME)
        assert engine.inspect(NAME, "{{.State.ExitCode}}") == "0"
    assert set(engine.instance.names()) == {"qemu-aarch64", "qemu-arm"}


def test_removed_with_on_stop(engine: Engine, config: Path) -> None:
    """With ``on_stop = "remove"`` its entries end with it, stand-ins as well."""
    config.write_text('architectures = ["arm64"]\non_stop = "remove"\n')
    start(engine, *BIND)
    engine.checked("stop", NAME)
    assert engine.instance.all_names() == []


@pytest.mark.usefixtures("config")
def test_commands_inside(engine: Engine) -> None:
    """``docker exec binfmtd binfmtd COMMAND``: status, doctor, explain, pause and resume work with no option."""
    start(engine, *BIND)
    assert json.loads(binfmtd(engine, "status", "--json").stdout)["state"] == "converged"
    assert binfmtd(engine, "doctor").status == 0
    assert binfmtd(engine, "plan").status == 0
    paused = binfmtd(engine, "pause", "qemu-arm")
    assert paused.status == 0, paused.stderr
    engine.instance.remove("qemu-arm")
    assert binfmtd(engine, "status", "--check").status == 3
    assert binfmtd(engine, "resume").status == 0
    wait_until(lambda: "qemu-arm" in engine.instance.names(), 30, "the repair after the pause")


@pytest.mark.parametrize(
    "options",
    [
        ("--cap-drop=all",),
        ("--cap-drop=all", "--read-only", "--tmpfs", "/run"),
        ("--cap-drop=all", "--security-opt=no-new-privileges", "--read-only", "--tmpfs", "/run"),
    ],
    ids=["no capabilities", "read-only", "no new privileges"],
)
@pytest.mark.usefixtures("config")
def test_least_privileges(engine: Engine, options: tuple[str, ...]) -> None:
    """Without privileges, with the host's mount bound in, it registers and repairs."""
    bind = ("-v", f"{MOUNT_POINT}:/binfmt_misc", *BIND)
    start(engine, command=("run", "-d", *options, *bind, "--network", "none", "--name", NAME, "binfmtd", "run"))
    engine.instance.remove("status")
    wait_until(lambda: set(engine.instance.names()) == {"qemu-aarch64", "qemu-arm"}, 30, "all entries again")


def test_sealed(engine: Engine, arm64: Path, config: Path) -> None:
    """With SYS_ADMIN alone it seals, under Docker's own seccomp profile; ``pause`` opens the instance."""
    config.write_text('architectures = ["arm64"]\nsealed = true\n')
    bind = ("-v", f"{MOUNT_POINT}:/binfmt_misc", *BIND)
    least = ("--cap-drop=all", "--cap-add", "SYS_ADMIN")
    start(engine, command=("run", "-d", *least, *bind, "--network", "none", "--name", NAME, "binfmtd", "run"))
    assert json.loads(binfmtd(engine, "status", "--json").stdout)["seal"]["state"] == "sealed"
    with engine.executing(arm64):
        for command in ("echo -1 >qemu-aarch64", "echo -1 >status", "echo 0 >status"):
            refused = engine.run("sh", "-c", command, directory=Path(MOUNT_POINT))
            assert "Read-only file system" in refused.stderr
        uninstalled = engine.docker("run", "--rm", "--privileged", "binfmt", "--uninstall", "qemu-*")
        assert "qemu-aarch64" in engine.instance.names(), uninstalled
    assert binfmtd(engine, "pause").status == 0
    assert engine.run("sh", "-c", "echo -1 >qemu-aarch64", directory=Path(MOUNT_POINT)).status == 0


def test_an_instance_that_only_containers_mount(start_engine: StartEngine, arm64: Path) -> None:
    """On a host without binfmt_misc ``apply`` refuses, and the daemon's container keeps it mounted."""
    engine = start_engine(mounted=False)
    refused = engine.docker("run", "--rm", "--privileged", "binfmtd", "--arch", "arm64")
    assert refused.status == 1
    assert "--pid=host" in refused.stderr
    start(engine)
    with engine.executing(arm64):
        pass


def test_real_time(start_engine: StartEngine) -> None:
    """``run --real-time`` repairs with real-time priority if the container's limit allows it."""
    if run(["prlimit", "--rtprio=1:1", "true"]).status != 0:
        pytest.skip("root may not raise RLIMIT_RTPRIO on this machine (CAP_SYS_RESOURCE)")
    engine = start_engine(real_time=True)
    engine.checked(*RUN_WORDS[:-2], "--ulimit", "rtprio=1", *RUN_WORDS[-2:], "--real-time")
    engine.wait_healthy(NAME)
    # The daemon takes the priority after its first status, by which it is healthy.
    wait_until(lambda: '"real_time"' in engine.docker("logs", NAME).stderr, 30, "the log line of real_time")


def test_real_time_is_refused(engine: Engine) -> None:
    """Without the limit the log names the remedy, and the daemon works."""
    engine.checked(*RUN_WORDS, "--real-time")
    engine.wait_healthy(NAME)

    def refusals() -> list[str]:
        return [line for line in engine.docker("logs", NAME).stderr.splitlines() if "real_time_refused" in line]

    (line,) = wait_until(refusals, 30, "the log line of the refusal")
    assert "SYS_NICE" in line


def test_commands_of_other_containers(engine: Engine, arm64: Path) -> None:
    """A container that registers once, as each job in CI does, leaves every stand-in of the daemon in place."""
    start(engine)

    def stand_ins() -> dict[str, int]:
        return {name: inode for name, inode in engine.instance.all_inodes().items() if is_stand_in(name)}

    before = stand_ins()
    with engine.executing(arm64):
        for command in (
            ("binfmt", "--install", "riscv64"),
            ("binfmt", "--uninstall", "qemu-s390x"),
            ("binfmt",),
            ("binfmtd", "plan"),
            ("binfmtd", "apply", "--arch", "riscv64"),
        ):
            engine.checked("run", "--rm", "--privileged", "--network", "none", *command)
    # A stand-in that is replaced is missing for a moment.
    wait_until(lambda: stand_ins().keys() == before.keys(), 30, "as many stand-ins as before")
    changed = {name for name, inode in stand_ins().items() if before[name] != inode}
    # A daemon replaces the stand-in of an entry that another program has registered again, without a gap.
    assert changed <= {stand_in_name("qemu-riscv64"), stand_in_name("qemu-s390x")}
