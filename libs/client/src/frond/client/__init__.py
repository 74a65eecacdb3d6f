"""The frond command and the Python client."""
