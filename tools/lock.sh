#!/usr/bin/env bash
# Pins and hashes what requirements/*.in name, for every Python from 3.11 on. `make lock` calls it.
# NAMES: other files than those of requirements/, without .in (`make train-lock`).
set -euo pipefail
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}
for name in ${NAMES:-requirements/services requirements/dev requirements/gpu}; do
  .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
    --python-version 3.11 --custom-compile-command "make lock" "$name.in" -o "$name.txt" "$@"
done
