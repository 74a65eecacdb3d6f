"""REST in, uploads streamed to the store, jobs, status, results, live progress."""
