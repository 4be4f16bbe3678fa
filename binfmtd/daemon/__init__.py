"""The daemon: one thread, one wait, and the pass that it makes when something may have changed."""
