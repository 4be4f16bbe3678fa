"""What ``binfmtd doctor`` asks: one file a subject, each from what was gathered (``scene``) to findings."""
