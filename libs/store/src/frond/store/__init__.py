"""S3 objects with deadlines: streams in and out, conditional puts, ranges."""
