"""Kafka by contract: topics, CloudEvents producer, consumer loop with a commit tracker, dead letters."""
