"""The command line: one file per command, from its arguments to its exit status.

Results go to stdout, everything else to stderr.
"""
