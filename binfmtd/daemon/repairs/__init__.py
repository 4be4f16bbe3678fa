"""When an entry is written: urgent repairs, the gate of a pass, backoff, the seal."""
