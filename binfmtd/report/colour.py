"""Colours: on a terminal only, and not if the user has disabled them."""

import os
from typing import TextIO


def takes_colours(stream: TextIO) -> bool:
    """Return True for a terminal with colours, unless ``$NO_COLOR`` is set and not empty (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
