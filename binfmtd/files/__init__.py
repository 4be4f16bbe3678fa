"""Operations on paths and files: link chains, trust, whole reads and writes, locks, binfmt.d directories."""
