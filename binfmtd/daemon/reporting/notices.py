"""Notices: log events about the daemon itself, each of which is one line and changes nothing else.

Examples: the state directory was made again, the loop has no real-time priority, HTTP is served at an address.
docs/logging.md lists them with all other events.
"""

import resource
from collections.abc import Collection

from binfmtd.daemon.reporting.event_log import EventLog


class Notices:
    """The notices of one daemon."""

    def __init__(self, event_log: EventLog, state_dir: str) -> None:
        """Write to ``event_log``; the state directory is named in notices about it."""
        self._event_log = event_log
        self._state_dir = state_dir

    def watch_lost(self) -> None:
        """Log that the instance under the watch is gone."""
        self._event_log.pass_log.warning("watch_lost")

    def state_dir_made_again(self) -> None:
        """Log that another program had removed the state directory, or the lock in it."""
        self._event_log.log.warning("state_dir_made_again", directory=self._state_dir)

    def state_dir_lost(self, problem: str) -> None:
        """Log once why the state directory cannot be made again."""
        self._event_log.once(f"state {problem}", "state_dir_lost", reason=problem)

    def unwatched(self, directories: Collection[str]) -> None:
        """Log once each directory whose changes go unnoticed until `resync`."""
        for directory in directories:
            self._event_log.once(f"unwatched {directory}", "directory_unwatched", directory=directory)

    def ledger_lost(self, problem: str) -> None:
        """Log why ledger.json or foreign.json of an earlier daemon cannot be used."""
        self._event_log.log.warning("ledger_lost", reason=problem)

    def real_time(self) -> None:
        """Log that the loop has real-time priority."""
        self._event_log.log.info("real_time")

    def real_time_refused(self, error: OSError) -> None:
        """Log why the loop has no real-time priority, with the remedy."""
        if resource.getrlimit(resource.RLIMIT_RTPRIO)[0] > 0:
            why = "RLIMIT_RTPRIO allows it, but the kernel (CONFIG_RT_GROUP_SCHED) or a seccomp filter does not"
        else:
            why = "allow it with LimitRTPRIO=1 (systemd) or the capability SYS_NICE (a container), or omit --real-time"
        self._event_log.log.info("real_time_refused", reason=f"{error.strerror or error}: {why}")

    def real_time_ended(self) -> None:
        """Log that the loop has lost its real-time priority, since it went too long without a wait."""
        reason = (
            "the loop ran without a pause for longer than RLIMIT_RTTIME allows: it runs without real-time priority "
            "from now on"
        )
        self._event_log.log.warning("real_time_ended", reason=reason)

    def restart_needed(self, reason: str) -> None:
        """Log once that a module could not be loaded.  Any thread may call it."""
        self._event_log.once(f"restart {reason}", "restart_needed", reason=reason)

    def modules_loaded(self) -> None:
        """Log that all modules are loaded: from now on the files of the package may be replaced."""
        self._event_log.log.debug("modules_loaded")

    def listening(self, address: str) -> None:
        """Log the address at which HTTP is served.  Any thread may call it."""
        self._event_log.log.info("listening", address=address)

    def metrics_failed(self, reason: str) -> None:
        """Log once why the metrics cannot be published.  Any thread may call it."""
        self._event_log.once(f"metrics {reason}", "metrics_failed", reason=reason)
