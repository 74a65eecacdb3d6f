"""The ledger: an image when all its chunks are there, a job when all its images are."""
