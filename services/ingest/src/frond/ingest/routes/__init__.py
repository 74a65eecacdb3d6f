"""The HTTP interface, a module for each thing one can talk about."""
