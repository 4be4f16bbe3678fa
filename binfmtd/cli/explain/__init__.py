"""The parts of ``binfmtd explain``: what the kernel would do with a file, and how that is shown."""
