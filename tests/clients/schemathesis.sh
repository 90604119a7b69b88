#!/usr/bin/env bash
# Fuzzes a running server through its OpenAPI document: no 5xx, no undocumented status, no answer that breaks its schema.
#
#   cargo run --release -- serve                        # with WATCHWORD_RATE_LIMITS=off, or most answers are 429
#   tests/clients/schemathesis.sh                       # with the platform key of ./data
#   BASE_URL=… ADMIN_KEY_FILE=… MAX_EXAMPLES=200 tests/clients/schemathesis.sh
#
# Use a data directory of its own: it makes, changes, disables and bans whatever the document lets it. Needs python3 with
# venv; schemathesis is installed under target/. Not part of `cargo test`, for its many dependencies and its length.
set -euo pipefail
cd "$(dirname "$0")/../.."

base_url=${BASE_URL:-http://127.0.0.1:8080}
key_file=${ADMIN_KEY_FILE:-data/admin.key}
environment=target/schemathesis-venv

if [ ! -x "$environment/bin/schemathesis" ]; then
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet 'schemathesis==4.7.1'
fi

# The key is passed on by a file that only this user can read, so that it is on no command line.
config=$(mktemp)
trap 'rm -f "$config"' EXIT
cat > "$config" <<CONFIG
[auth.openapi.api_key]
bearer = "$(cat "$key_file")"
CONFIG

"$environment/bin/schemathesis" --config-file "$config" run "$base_url/openapi.json" --url "$base_url" \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
  --max-examples "${MAX_EXAMPLES:-50}" --workers 2 --exclude-path-regex '/events$'
