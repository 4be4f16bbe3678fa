"""Publishing metrics: over HTTP, and as a file for node_exporter."""
