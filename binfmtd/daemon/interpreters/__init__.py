"""Facts about the host and about the interpreters' files, and the probes that run foreign programs."""
