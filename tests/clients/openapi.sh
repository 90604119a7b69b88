#!/usr/bin/env bash
# Reads schemas/openapi.json as others do: Redocly's linter finds no error in it, a TypeScript client that is generated from it
# compiles with a program that uses its types (typescript/client.ts), and openapi-generator accepts it.
#
#   tests/clients/openapi.sh
#
# Needs node with npm; for openapi-generator python3 with venv and java, without which that step is skipped
# (`REQUIRE_JAVA=1` makes that a failure). What it runs is installed under target/. About 20 seconds once it is there.
set -euo pipefail
cd "$(dirname "$0")/../.."

document=$PWD/schemas/openapi.json
client=$PWD/target/typescript-client
generator=7.26.0

mkdir -p "$client"
cp tests/clients/typescript/{package.json,tsconfig.json,client.ts} "$client/"
cd "$client"
if ! cmp --silent package.json installed; then
  npm install --silent --no-audit --no-fund
  cp package.json installed
fi

printf '==> redocly\n'
REDOCLY_TELEMETRY=off npx redocly lint --extends recommended --format=stylish "$document" 2>&1 | sed '/^ *[╔║╚]/d'
printf '==> openapi-typescript\n'
npx openapi-typescript "$document" --output schema.d.ts
npx tsc --project tsconfig.json

printf '==> openapi-generator\n'
if ! command -v java > /dev/null; then
  if [ -n "${REQUIRE_JAVA:-}" ]; then echo 'there is no java' >&2; exit 1; fi
  echo 'skipped: there is no java'
  exit 0
fi
environment=../openapi-generator-venv
if ! [ -x "$environment/bin/openapi-generator-cli" ]; then
  python3 -m venv --clear "$environment"
  "$environment/bin/python" -m pip install --quiet "openapi-generator-cli==$generator"
fi
"$environment/bin/openapi-generator-cli" validate --input-spec "$document"
