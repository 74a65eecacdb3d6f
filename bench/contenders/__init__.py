"""What is timed: each function prepares, warms up, and returns the work as a callable."""
