"""The rim towards the kernel: binfmt_misc itself, interpreter files, and what this host runs natively."""
