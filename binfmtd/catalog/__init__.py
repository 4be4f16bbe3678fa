"""Pure data: QEMU's architectures, their names everywhere, and what their programs look like."""
