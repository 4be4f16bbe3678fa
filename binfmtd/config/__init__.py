"""From TOML files to a Config: the only package that imports pydantic, and only when there is a file to check."""
