"""Data: QEMU's architectures, their names in other projects, the headers of their programs, and tiny programs."""
