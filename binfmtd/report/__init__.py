"""What the daemon tells: log, status file."""
