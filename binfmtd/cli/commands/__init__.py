"""One module for each command, with ``parser`` and ``main``; ``binfmtd.cli.main`` lists them."""
