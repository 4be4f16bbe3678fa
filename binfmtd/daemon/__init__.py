"""The daemon: one thread that repairs, its one wait, its passes, and the threads that do whatever may block."""
