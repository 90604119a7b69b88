#!/usr/bin/env bash
# Reads schemas/openapi.json as others do, and logs in with what they make of it.
#
#   tests/clients/openapi.sh
#   BINARY=target/release/watchword tests/clients/openapi.sh
#
# Redocly's linter and Spectral find nothing, warnings included, but what redocly.yaml and spectral.yaml leave out with a reason.
# The clients that openapi-typescript, openapi-generator (`python`, `typescript-fetch`) and openapi-python-client make compile, and
# each registers, logs in, refreshes and is refused on a server that is started for it. typescript/client.ts says what a
# typed client can say, and what it is kept from saying. What openapi-generator makes in C#, Java, Go, Kotlin and Swift is
# inspected by inspect_clients.py and, where there is `go` or `javac`, compiled.
#
# Needs python3 with venv, and node with npm, which it gets by deploy/dev-services where there is none. The generators are installed
# under target/, each package named by its hash: 350 MB. About a minute once they are there, and as long again to get them.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$PWD
document=$root/schemas/openapi.json
here=$root/tests/clients
work=$root/target/openapi-clients
step() { printf '\n==> %s\n' "$*"; }

eval "$(deploy/dev-services paths node)"
PATH=$(dirname "$NODE"):$PATH
npm() { if [ -n "$NODE_NPM" ]; then "$NODE" "$NODE_NPM" "$@"; else command npm "$@"; fi; }

mkdir -p "$work"
cd "$work"
# Whatever was made for another version of the lists is made anew.
have() { [ -e "$1/complete" ] && [ "$(cat "$1/complete")" = "$2" ]; }
wanted=$(sha256sum < "$here/typescript/package-lock.json")
if ! have typescript "$wanted"; then
  step "npm: linters, openapi-typescript"
  rm -rf typescript && mkdir typescript
  cp "$here"/typescript/package{,-lock}.json typescript/
  npm ci --prefix typescript --ignore-scripts --no-audit --no-fund --silent
  echo "$wanted" > typescript/complete
fi
wanted=$(sha256sum < "$here/python/requirements.txt")
if ! have python "$wanted"; then
  step "pip: openapi-generator and its Java, openapi-python-client"
  rm -rf python
  python3 -m venv python
  python/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$here/python/requirements.txt"
  echo "$wanted" > python/complete
fi
tool() { local name=$1; shift; "$NODE" "typescript/node_modules/$name" "$@"; }

step "Redocly and Spectral"
REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true tool @redocly/cli/bin/cli.js lint --config "$here/redocly.yaml" \
  --format=json "$document" > redocly.json 2> redocly.log || { cat redocly.log redocly.json; exit 1; }
python3 - redocly.json <<'PYTHON'
import json, sys
# The one ambiguity: no user has the id `import`, as ids are UUIDs.
known = ("no-ambiguous-paths", "/admin/users/import/{import_id}` and `/v1/apps/{app_id}/admin/users/{user_id}/")
problems = json.load(open(sys.argv[1]))["problems"]
problems = [it for it in problems if it["ruleId"] != known[0] or known[1] not in it["message"]]
for problem in problems:
    print(problem["severity"], problem["ruleId"], problem["message"], [place.get("pointer") for place in problem["location"]])
sys.exit(f"Redocly found {len(problems)} problems" if problems else 0)
PYTHON
tool @stoplight/spectral-cli/dist/index.js lint --ruleset "$here/spectral.yaml" --fail-severity hint "$document"

step "openapi-typescript, and openapi-generator as typescript-fetch"
cp "$here"/typescript/{tsconfig.json,*.ts} typescript/
tool openapi-typescript/bin/cli.js "$document" --output typescript/schema.d.ts > /dev/null
generate() {
  rm -rf "$2"
  python/bin/openapi-generator-cli generate --input-spec "$document" --generator-name "$1" --output "$2" "${@:3}" > "$1.log" 2>&1 ||
    { cat "$1.log"; exit 1; }
}
generate typescript-fetch typescript/fetch --additional-properties=importFileExtension=.js
tool typescript/bin/tsc --project typescript/tsconfig.json

step "openapi-generator as python, and openapi-python-client"
generate python generator --additional-properties=packageName=watchword_client
rm -rf made && mkdir made
# It makes nothing of an operation that takes a text, and warns: it gets the document without the two that there are.
python3 - "$document" without_texts.json <<'PYTHON'
import json, sys
document = json.load(open(sys.argv[1]))
del document["paths"]["/v1/audit/checkpoint/cosignatures"]
del document["paths"]["/v1/apps/{app_id}/admin/users/import"]
json.dump(document, open(sys.argv[2], "w"))
PYTHON
PATH=$work/python/bin:$PATH python/bin/openapi-python-client generate --path without_texts.json --output-path made/watchword --meta none \
  --fail-on-warning > made.log 2>&1 || { cat made.log; exit 1; }
python/bin/python -m compileall -q generator/watchword_client made/watchword

step "openapi-generator as csharp, java, go, kotlin and swift6"
python/bin/python "$here/inspect_clients.py" python/bin/python inspected "$document"

step "a server, and a login with each"
if [ -z "${BINARY:-}" ]; then
  (cd "$root" && cargo build --quiet --locked -p watchword)
  BINARY=${CARGO_TARGET_DIR:-$root/target}/debug/watchword
fi
case $BINARY in /*) ;; *) BINARY=$root/$BINARY ;; esac
umask 077
scratch=$(mktemp -d)
server=
cleanup() {
  if [ -n "$server" ]; then kill "$server" 2> /dev/null || true; wait "$server" 2> /dev/null || true; fi
  rm -rf "$scratch"
}
trap cleanup EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
address=http://127.0.0.1:$port
(cd "$scratch" && exec env WATCHWORD_LISTEN="127.0.0.1:$port" WATCHWORD_PUBLIC_URL="$address" WATCHWORD_DATA_DIR="$scratch/data" \
  WATCHWORD_LOG=warn "$BINARY" serve) > "$scratch/log" 2>&1 &
server=$!
is_ready() { python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$address/readyz" 2> /dev/null; }
for _ in $(seq 600); do
  if is_ready; then break; fi
  kill -0 "$server" 2> /dev/null || { cat "$scratch/log"; exit 1; }
  sleep 0.1
done
is_ready || { echo "the server is not ready:"; cat "$scratch/log"; exit 1; }

"$NODE" typescript/out/openapi-fetch.js "$address" openapi-fetch
"$NODE" typescript/out/typescript-fetch.js "$address" typescript-fetch
PYTHONPATH=generator python/bin/python "$here/python/openapi_generator.py" "$address" openapi-generator
PYTHONPATH=made python/bin/python "$here/python/openapi_python_client.py" "$address" openapi-python-client
printf '\n%d s\n' "$SECONDS"
