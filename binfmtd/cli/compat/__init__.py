"""Drop-ins: the command ``binfmt`` accepts the command lines of widely used images, and runs binfmtd's reconciler.

One module an image; ``main`` chooses.  docs/drop-ins.md compares each with its original, line by line.
"""
