#!/usr/bin/env bash
# Points training's DVC at a bucket of the stack's object store. `make dvc-remote` calls it.
# Endpoint and keys go into training/.dvc/config.local, which git does not see.
set -euo pipefail
TRAIN_VENV=${TRAIN_VENV:-training/.venv} BUCKET=${DVC_BUCKET:-frond-dvc}
# what is set already comes first, as for every command
[ ! -f .frond/env ] || while IFS= read -r line; do
  name=${line#export }; name=${name%%=*}
  case $name in FROND_S3_*) [ -n "${!name:-}" ] || eval "export ${line#export }" ;; esac
done <.frond/env
[ -n "${FROND_S3_ENDPOINT:-}" ] || { echo "No object store: run make up, or set FROND_S3_ENDPOINT, FROND_S3_ACCESS_KEY and FROND_S3_SECRET_KEY." >&2; exit 1; }

python=$(cd "$(dirname "$TRAIN_VENV")" && pwd)/$(basename "$TRAIN_VENV")/bin/python
"$python" - "$BUCKET" <<'PY'
import asyncio, sys
from frond.client.objects import open_store
store = open_store()
asyncio.run(store.ensure_bucket(sys.argv[1]))
store.close()
PY
cd training
remote() { "$python" -m dvc remote "$@"; }
remote add --local --force --default --quiet stack "s3://$BUCKET"
remote modify --local --quiet stack endpointurl "$FROND_S3_ENDPOINT"
remote modify --local --quiet stack access_key_id "$FROND_S3_ACCESS_KEY"
remote modify --local --quiet stack secret_access_key "$FROND_S3_SECRET_KEY"
chmod 600 .dvc/config.local
echo "DVC's remote 'stack' is s3://$BUCKET at $FROND_S3_ENDPOINT: dvc push, dvc pull in training/"
