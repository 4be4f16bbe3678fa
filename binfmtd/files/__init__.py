"""Plain file work that is nobody's in particular: links, trust, whole reads and writes."""
