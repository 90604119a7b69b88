#!/usr/bin/env bash
# Starts a server and fuzzes it through its OpenAPI document: no 5xx, no undocumented status, content type or header, no
# response that violates its schema, no protected route that works without credentials.
#
#   tests/clients/schemathesis.sh
#   BINARY=target/release/watchword MAX_EXAMPLES=200 SEED=7 tests/clients/schemathesis.sh
#
# It calls as the platform, as an API key of an app, and as a user. Needs python3 with venv and curl; schemathesis is
# installed under target/. Not part of `cargo test` because of its many dependencies and its duration. The last line has
# the result; it exits with 0 only if every pass found nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=4.32.5
seed=${SEED:-1}
examples=${MAX_EXAMPLES:-25}
environment=target/schemathesis-venv
python=$environment/bin/python

if ! "$environment/bin/schemathesis" --version 2>/dev/null | grep -qF "$version"; then
  python3 -m venv --clear "$environment"
  "$python" -m pip install --quiet "schemathesis==$version"
fi
if [ -z "${BINARY:-}" ]; then
  cargo build --quiet -p watchword
  BINARY=target/debug/watchword
fi

# Keys are passed in files that only this user can read, so that they are on no command line.
umask 077
scratch=$(mktemp -d)
server=
cleanup() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  rm -rf "$scratch"
}
trap cleanup EXIT

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
base=http://127.0.0.1:$port
# Cheap hashes and no limits: this tests only the form of responses.
WATCHWORD_LISTEN=127.0.0.1:$port WATCHWORD_PUBLIC_URL=$base WATCHWORD_DATA_DIR=$scratch/data WATCHWORD_LOG=warn \
  WATCHWORD_RATE_LIMITS=off WATCHWORD_ARGON2=m=8,t=1,p=1 "$BINARY" serve > "$scratch/log" 2>&1 &
server=$!
for _ in $(seq 300); do
  curl --silent --fail --output /dev/null "$base/readyz" && break
  kill -0 "$server" 2>/dev/null || { cat "$scratch/log"; exit 1; }
  sleep 0.1
done

# request <credential file> <path> <body> <member of the answer, with dots>
request() {
  printf 'header = "Authorization: Bearer %s"\n' "$(cat "$1")" > "$scratch/curl"
  curl --silent --show-error --fail-with-body --config "$scratch/curl" --dump-header "$scratch/headers" \
    --json "$3" "$base$2" |
    "$python" -c 'import functools, json, sys
print(functools.reduce(lambda value, name: value[name], sys.argv[1].split("."), json.load(sys.stdin)))' "$4"
}

# A caller in an app of its own, and a user to ask about.
platform=$scratch/data/admin.key
request "$platform" /v1/apps '{"app_id": "fuzz", "name": "Fuzz"}' app_id > /dev/null
every='"users:read", "users:write", "audit:read", "events:read", "settings:write", "keys:write", "tokens:create"'
request "$platform" /v1/apps/fuzz/admin/api-keys "{\"name\": \"fuzz\", \"permissions\": [$every]}" key > "$scratch/key"
register() { request /dev/null "/v1/apps/$1/auth/register" "{\"email\": \"$2@example.org\", \"password\": \"violet-Kettle-93\"}" "$3"; }
subject=$(register fuzz subject user.id)
register fuzz user access_token > "$scratch/user"
register default user access_token > "$scratch/default-user"
seen=$(sed -n 's/^consistency-token: *\([A-Za-z0-9_-]*\).*/\1/ip' "$scratch/headers")

passes=0 failed=0 cases=0
# pass <what> <app> <scheme> <credential file> [option of schemathesis]...
pass() {
  local what=$1 app=$2 scheme=$3 credential=$4
  shift 4
  printf '\n==> as %s\n' "$what"
  passes=$((passes + 1))
  cat > "$scratch/config.toml" <<CONFIG
[cache]
enabled = false

[auth.openapi.$scheme]
bearer = "$(cat "$credential")"

# A made-up token is refused, even if it is well-formed: that is correct.
[parameters]
"path.app_id" = "$app"
"path.user_id" = "$subject"
"header.Consistency-Token" = "$seen"
CONFIG
  "$environment/bin/schemathesis" --config-file "$scratch/config.toml" run "$base/openapi.json" --url "$base" \
    --exclude-checks positive_data_acceptance,use_after_free,ensure_resource_availability,object_level_authorization \
    --max-examples "$examples" --seed "$seed" --workers 1 --no-color --generation-database none \
    --report json --report-json-path "$scratch/report.json" "$@" || failed=$((failed + 1))
  cases=$((cases + $("$python" -c 'import json, sys; print(json.load(sys.stdin)["test_cases"]["generated"])' < "$scratch/report.json")))
}

# Operations that stop an app or end the calling session come last, or everything after them would be refused.
ends='^(disableApp|logout|revokeOwnSessions?|revokeToken)$'
pass "the platform" fuzz api_key "$platform" --exclude-operation-id-regex "$ends"
pass "an API key of the app" fuzz api_key "$scratch/key" --exclude-operation-id-regex "$ends"
pass "a user" fuzz user "$scratch/user" --exclude-operation-id-regex "$ends"
pass "a user who leaves" default user "$scratch/default-user" --include-operation-id-regex "$ends"
pass "the platform, stopping an app" fuzz api_key "$platform" --include-operation-id disableApp

if grep 'panicked at' "$scratch/log"; then failed=$((failed + 1)); fi
printf '\nschemathesis %s, seed %s: %d cases in %d passes, %d of them failed, %d s\n' \
  "$version" "$seed" "$cases" "$passes" "$failed" "$SECONDS"
exit $((failed > 0))
