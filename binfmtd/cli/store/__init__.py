"""The store of emulators: what ``binfmtd emulators`` reads and writes.  The daemon reads the files, and adds none."""
