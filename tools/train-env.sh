#!/usr/bin/env bash
# Makes training/.venv: what training/requirements.txt pins (torch, MLflow, DVC …) and those of the
# workspace's members that training builds on. `make train-env` calls it, after .venv is there.
set -euo pipefail
VENV=${VENV:-.venv} TRAIN_VENV=${TRAIN_VENV:-training/.venv}
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}

[ -x "$TRAIN_VENV/bin/python" ] || "$VENV/bin/uv" venv --quiet --python "$VENV/bin/python" "$TRAIN_VENV"
export VIRTUAL_ENV=$PWD/$TRAIN_VENV
python=$TRAIN_VENV/bin/python
echo "Installing what training/requirements.txt pins into $TRAIN_VENV (torch is large)"
"$VENV/bin/uv" pip install --quiet --python "$python" --require-hashes -r training/requirements.txt
members=()
for name in contracts store models merge masks raster evaluation drift client; do members+=(-e "libs/$name"); done
"$VENV/bin/uv" pip install --quiet --python "$python" --no-deps --no-build-isolation "${members[@]}" -e training
echo "Ready: frond train palm --config training/configs/palm.yaml"
