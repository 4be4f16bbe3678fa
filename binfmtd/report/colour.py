"""Colours: on a terminal only, and not for who does not want them."""

import os
from typing import TextIO


def takes_colours(stream: TextIO) -> bool:
    """Whether it is a terminal with colours; ``$NO_COLOR``, unless empty, says no (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
