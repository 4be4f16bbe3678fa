"""The architectures that this host runs natively, found by running a tiny program of each.

* The programs run in a child user namespace with an empty instance, since an emulator could run them otherwise.
* If such a namespace is forbidden, they run directly, provided that no enabled entry takes the program's header.
* A program that was killed by SIGSYS did start: a seccomp filter forbade its first call (systemd's
  SystemCallArchitectures=native).
* A kernel executes one machine's programs, or those of a few related ones.  So once a program has run, only those of
  related machines are tried: 2 ms in place of 6 ms.
* A table of families decides only where neither way is possible.  In a container for another machine, an emulator
  runs this process, and uname(2) names that machine.  So the file counts that the kernel itself runs.
"""

import os
import signal
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from errno import EAGAIN

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.catalog.program import tiny_program
from binfmtd.errors import PASSING
from binfmtd.host.facts import OWN_PROGRAM
from binfmtd.host.interpreters import read_head
from binfmtd.model.entry import ObservedState
from binfmtd.model.match import takes

EXIT_STATUS = 42
_NO_RESULT = PASSING | {EAGAIN}  # there can be no other process now
_MFD_EXEC = (
    0x10  # Linux 6.3: the file may be executed whatever the sysctl vm.memfd_noexec is; older kernels refuse the flag
)

# uname's machine -> QEMU's names of the architectures that certainly run there.
_FAMILIES = {
    "x86_64": {"x86_64", "i386"},
    "i686": {"i386"},
    "aarch64": {"aarch64"},
    "armv7l": {"arm"},
    "ppc64le": {"ppc64le"},
    "riscv64": {"riscv64"},
    "s390x": {"s390x"},
    "loongarch64": {"loongarch64"},
}
# uname's machine -> what may run there as well, such as a 32-bit Python under a 64-bit kernel.
_BESIDE = {"aarch64": {"arm"}}


# The values of e_machine that one kernel executes: i386 and x86_64; ppc and ppc64; sparc, sparc32plus and sparc64; arm
# and aarch64 (elf_check_arch and compat_elf_check_arch, arch/*/include/asm/elf.h).  Other kernels execute one value.
_RELATED = ({3, 62}, {20, 21}, {2, 18, 43}, {40, 183})


def find_native(observed: ObservedState | None) -> frozenset[str]:
    """Return QEMU's names of what runs here without an emulator; ``observed`` is None if entries cannot be read."""
    family = certainly_native()
    by_likelihood = sorted(CATALOG.values(), key=lambda architecture: architecture.name not in family)
    answers = _ask_in_namespace(by_likelihood)
    if not answers and observed is not None:
        answers = try_all(by_likelihood, lambda program: None if _taken(program, observed) else runs(program))
    return frozenset(name for name in CATALOG if answers.get(name, name in family))


def try_all(architectures: Iterable[Architecture], run: Callable[[bytes], bool | None]) -> dict[str, bool]:
    """Return the answers of ``run``, by name; an architecture for which it returns None has none."""
    answers: dict[str, bool] = {}
    related: AbstractSet[int] | None = None
    for architecture in architectures:
        machine = architecture.header.e_machine
        if related is not None and machine not in related:
            answers[architecture.name] = False
        elif (answer := run(tiny_program(architecture))) is not None:
            answers[architecture.name] = answer
            if answer:
                related = next((machines for machines in _RELATED if machine in machines), {machine})
    return answers


def certainly_native() -> AbstractSet[str]:
    """Return QEMU's names of what certainly runs on this machine."""
    named = _FAMILIES.get(os.uname().machine, set())
    head = read_head(OWN_PROGRAM)
    ours = {architecture.name for architecture in CATALOG.values() if takes(architecture.match, head)}
    if ours & (named | _BESIDE.get(os.uname().machine, set())) or not ours:
        return named | ours
    return ours.union(*(_FAMILIES.get(name, set()) for name in ours))


def runs(program: bytes) -> bool | None:
    """Return True if the program starts here and now; None if this cannot be tried.  Takes about half a millisecond."""
    try:
        descriptor = _memory_file(program)
    except OSError:
        return None
    try:
        child = os.posix_spawn(f"/proc/self/fd/{descriptor}", ["probe"], {})
    except PermissionError:
        return None
    except OSError as error:  # ENOEXEC: no loader takes it
        return None if error.errno in _NO_RESULT else False
    finally:
        os.close(descriptor)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGSYS
    return os.WEXITSTATUS(status) == EXIT_STATUS


def _taken(program: bytes, observed: ObservedState) -> bool:
    if not observed.switched_on:
        return False
    return any(
        entry.enabled and (entry.registration is None or takes(entry.registration.match, program))
        for entry in observed.entries
    )


def _memory_file(program: bytes) -> int:
    try:
        descriptor = os.memfd_create("probe", os.MFD_CLOEXEC | _MFD_EXEC)
    except OSError:
        descriptor = os.memfd_create("probe", os.MFD_CLOEXEC)
    os.write(descriptor, program)
    # A file that is open for writing cannot be executed (ETXTBSY): continue with a descriptor for reading.
    reading = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(descriptor)
    return reading


def _ask_in_namespace(architectures: Iterable[Architecture]) -> dict[str, bool]:
    """Try all in a child process with its own, empty instance; return which ones ran, nothing if that is forbidden.

    Raises OSError if there can be no child process.
    """
    # What the child needs is loaded before: at the fork another thread may hold the lock of a module, for ever.
    from binfmtd.host import syscalls  # noqa: F401
    from binfmtd.host.sandbox import enter_as_nobody

    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if child == 0:
        status = 1
        try:
            enter_as_nobody()
            text = " ".join(f"{name}={int(answer)}" for name, answer in try_all(architectures, runs).items())
            os.write(writing, text.encode())
            status = 0
        except OSError:
            status = 1  # forbidden: the caller gets no results
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        text = file.read().decode("ascii")
    with suppress(ChildProcessError):  # the loop, as process 1 of a container, collects each child that has ended
        os.waitpid(child, 0)
    return {name: answer == "1" for name, _, answer in (pair.partition("=") for pair in text.split())}
