"""Pure conversions between texts and values: nothing here opens a file."""
