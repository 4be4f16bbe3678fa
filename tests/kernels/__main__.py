"""``make kernels``: the kernel suite on kernels old and new, each in a virtual machine, and a table of the results.

    python -m kernels [VERSION ...] [-- ARGUMENT ...]

The versions are those of ``images.KERNELS``, by default the kernels of x86-64 without a security module; the arguments
are pytest's, in place of the suite's files.  The machines' output stays in ``build/kernels``.  The exit status is 1 if
a test failed, or a machine did not finish.
"""

import sys

from kernels.images import KERNELS, NATIVE, image
from kernels.machine import CHECKOUT, Outcome, run_tests
from kernels.table import table

BUILD = CHECKOUT / "build" / "kernels"
SECONDS = 5400  # for one machine
# The tests that depend on the kernel: entries, drift, reload, replacement under a storm of executions, kill -9.
SUITE = (
    *(f"kernel/test_{name}.py" for name in ("instance", "facts", "drift", "stand_ins", "reload", "foreign", "restore")),
    *(f"kernel/test_{name}.py" for name in ("interpreters", "lifecycle", "mount", "automount", "hardships", "seal")),
    *(f"kernel/reliability/test_{name}.py" for name in ("no_gap", "killed", "bricked", "no_inotify", "chaos")),
)
# And those that depend on the architecture: what runs natively, each emulator, and `explain` beside the kernel.
ELSEWHERE = tuple(
    f"kernel/test_{name}.py"
    for name in ("catalog", "explain_oracle", "permanent_stand_ins", "probe", "probing", "settings")
)
CLOCK = "kernel/reliability/test_clock.py"  # it sets the machine's clock, so no test may run beside it
SECURITY = {"apparmor": ("security/test_apparmor.py",), "selinux": ("security/test_selinux.py",)}
USUAL = tuple(version for version, kernel in KERNELS.items() if kernel.architecture == NATIVE and not kernel.root)


def main(arguments: list[str]) -> int:
    """Run them one after another: each takes two cores."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    chosen = arguments[place + 1 :]
    if unknown := set(arguments[:place]) - set(KERNELS):
        return say(f"kernels: not among {', '.join(KERNELS)}: {', '.join(sorted(unknown))}", 2)
    outcomes: dict[str, Outcome] = {}
    for version in arguments[:place] or USUAL:
        options = ["-m", "not debian", "-v", "--color=no", "-p", "no:cacheprovider", *workers(version)]
        tests = chosen or [f"tests/{name}" for name in suite(version)]
        outcomes[version] = run_tests(image(version, BUILD), [*options, *tests], SECONDS, BUILD / f"{version}.log")
    text, good = table(outcomes)
    return say(text, 0 if good else 1)


def suite(version: str) -> tuple[str, ...]:
    """Return the files of tests that a kernel gets by default."""
    usual = SUITE if KERNELS[version].architecture == NATIVE else (*SUITE, *ELSEWHERE)
    return SECURITY.get(version, usual if workers(version) else (*usual, CLOCK))


def workers(version: str) -> list[str]:
    """Return the option for two tests at a time, if each test has its own instance: from Linux 6.7 on.

    The tests of security modules use the machine's own, with the daemon of a host.
    """
    alone = version in SECURITY or KERNELS[version].suite in ("bullseye", "bookworm")
    return [] if alone else ["-n", "2"]


def say(text: str, status: int) -> int:
    """Print it, and return the exit status."""
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
