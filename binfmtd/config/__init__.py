"""From TOML files to a Config: the only package that imports pydantic, and only once a config is really loaded."""
