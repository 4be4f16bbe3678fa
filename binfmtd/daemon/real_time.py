"""Real-time scheduling of the loop's thread: a repair must not wait for a core that a build uses.

Threads and child processes stay ordinary (SCHED_RESET_ON_FORK, sched(7)).  A loop that uses the CPU for 2 s without a
blocking system call gets SIGKILL from the kernel (RLIMIT_RTTIME, getrlimit(2)), so that a fault cannot starve the host.
"""

import os
import resource

PRIORITY = 10  # above every ordinary process, below the kernel's own threads (50 and more)
LONGEST = 2_000_000  # microseconds of CPU time without a blocking system call


def use_real_time() -> str | None:
    """Have this thread scheduled in real time; returns why that is not allowed, with what to do, or None."""
    try:
        resource.setrlimit(resource.RLIMIT_RTTIME, (LONGEST, LONGEST))
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except (OSError, ValueError) as error:
        return (
            f"real-time scheduling is not allowed here ({error}): give the container CAP_SYS_NICE "
            f"(docker run --cap-add sys_nice), or raise the limit (systemd: LimitRTPRIO={PRIORITY})"
        )
    return None
