"""The files in the state directory: what the daemon remembers over restarts, and what commands write for it."""
