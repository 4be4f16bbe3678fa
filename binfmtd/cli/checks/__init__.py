"""The checks of ``binfmtd doctor``, one module a subject: each makes findings of the facts that ``scene`` gathered."""
