"""The ledger: per image, then per job; merging, artifacts, the completed event."""
