"""The command line: one file a command, from arguments to exit code.

Results go to stdout, everything else to stderr.
"""
