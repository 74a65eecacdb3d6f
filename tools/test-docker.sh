#!/usr/bin/env bash
# docker-compose.yml for real: builds the images, starts everything, sends one job through all three
# doors, stops everything; then the stack's tests in containers (testcontainers). `make test-docker`.
set -euo pipefail
die() { printf '\n%s\n' "$*" >&2; exit 1; }
say() { printf '[%3ds] %s\n' "$SECONDS" "$*"; }

docker info >/dev/null 2>&1 || die "No Docker engine answers. Start one first: this builds and runs containers."
if docker compose version >/dev/null 2>&1; then compose=(docker compose)
elif command -v docker-compose >/dev/null; then compose=(docker-compose)
else die "There is neither 'docker compose' nor 'docker-compose'."; fi
# what has no buildx is built by the classic builder; the Dockerfiles need nothing newer
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0

port() { .venv/bin/python -c 'from frond.stack.paths import free_port; print(free_port())'; }
FROND_API_PORT=$(port); FROND_KAFKA_PORT=$(port); FROND_S3_PORT=$(port)
FROND_INFERENCE_PORT=$(port)
export FROND_API_PORT FROND_KAFKA_PORT FROND_S3_PORT FROND_INFERENCE_PORT
export FROND_S3_ACCESS_KEY=frond-test FROND_S3_SECRET_KEY=frond-test-secret FROND_API_KEY=frond-test-key
export FROND_POSTGRES_PASSWORD=frond-test-password
export FROND_S3_BUCKET=frond FROND_PUBLIC_URL=http://127.0.0.1:$FROND_API_PORT
project=frondtest$$
run() { "${compose[@]}" -p "$project" "$@"; }
finish() {
  code=$?
  if [ $code -ne 0 ]; then run ps || true; run logs --no-color --tail=60 || true; fi
  run down -v --remove-orphans >/dev/null 2>&1 || true
  exit $code
}
trap finish EXIT

say "Building the five images"
log=$(mktemp)
run build >"$log" 2>&1 || { cat "$log"; exit 1; }
rm -f "$log"
say "Starting everything"
run up -d --no-build
for service in ingest tiler inference aggregator notifier; do
  id=$(run ps -q "$service")
  until [ "$(docker inspect -f '{{.State.Health.Status}}' "$id")" = healthy ]; do
    [ "$SECONDS" -lt 900 ] || die "$service did not become healthy."
    sleep 1    # Docker announces health to nobody who does not ask
  done
  say "$service is healthy"
done

FROND_API_URL=http://127.0.0.1:$FROND_API_PORT FROND_KAFKA_BOOTSTRAP=127.0.0.1:$FROND_KAFKA_PORT \
  FROND_S3_ENDPOINT=http://127.0.0.1:$FROND_S3_PORT .venv/bin/python tests/docker/three_doors.py
say "Stopping"
run down -v --remove-orphans

say "The tests' own stack in containers"
unset "${!FROND_@}"
FROND_STACK=docker .venv/bin/python -m pytest -q -m stack libs/stack libs/bus libs/store
say "Docker: all well"
