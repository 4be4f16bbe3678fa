"""The state of each managed entry, the fast repair of one, and the pass over all of them."""
