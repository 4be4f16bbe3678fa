"""Pure values and decisions: no os, no clock, no logging."""
