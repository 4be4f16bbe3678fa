"""binfmtd keeps Linux's binfmt_misc in step with a declared set of handlers."""

__version__ = "0.1.0"
