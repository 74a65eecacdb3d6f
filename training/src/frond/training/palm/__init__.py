"""palm-detector: boxes of palms in aerial RGB."""
