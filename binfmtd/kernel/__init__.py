"""Access to the kernel: binfmt_misc, interpreter files, and the architectures that this host runs natively."""
