#!/usr/bin/env bash
# Writes .env for docker compose: random passwords and keys, readable by this user alone. One that is
# there stays as it is: volumes were made with its passwords. `make env` calls it.
set -euo pipefail
file=${1:-.env}
if [ -e "$file" ]; then echo "$file is there already; it stays."; exit 0; fi
# 40 characters that need no escaping in a URL
random() { head -c 30 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'; }
umask 077
# a shell that dies in between leaves no half of it
cat > "$file.$$" <<END
FROND_S3_ACCESS_KEY=frond-$(head -c 4 /dev/urandom | od -An -tx1 | tr -d ' \n')
FROND_S3_SECRET_KEY=$(random)
FROND_POSTGRES_PASSWORD=$(random)
FROND_API_KEY=frond_$(random)
FROND_WEBHOOK_SECRET=whsec_$(head -c 24 /dev/urandom | base64 | tr -d '\n')
END
mv -n "$file.$$" "$file"
echo "Wrote $file: passwords of the store and the database, and FROND_API_KEY, which opens the doors."
