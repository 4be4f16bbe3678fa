"""The checks of ``binfmtd doctor``, one module a subject: each makes findings from the facts in ``snapshot``."""
