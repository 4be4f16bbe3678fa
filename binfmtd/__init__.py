"""A daemon that keeps Linux's binfmt_misc equal to a declared set of handlers."""

__version__ = "0.1.0"
