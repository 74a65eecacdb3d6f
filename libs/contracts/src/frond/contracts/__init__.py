"""Events, topics, keys, jobs and result types: pydantic alone, for outside publishers too."""
