"""The daemon's output: log, status, metrics, labels, page."""
