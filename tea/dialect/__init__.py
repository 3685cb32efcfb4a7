"""The YAML dialect."""
