"""The stack on one machine: Docker Compose or native Kafka and MinIO, and the five services."""
