"""Facts about this host, and the system calls that Python lacks: everything of the kernel's but binfmt_misc itself."""
