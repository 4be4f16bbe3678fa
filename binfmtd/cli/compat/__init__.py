"""Drop-ins: the command lines of the images that people use today, over binfmtd's own reconciler.

One file an image; ``main`` chooses.  docs/drop-ins.md compares each with its original, line by line.
"""
