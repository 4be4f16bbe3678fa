"""Reports for administrators and programs: causes of drifts, log lines, counters, the status file."""
