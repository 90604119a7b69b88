# What a contributor types. `just` lists it.

_list:
    @just --list

# All that CI runs
ci:
    .ci/run

# Formats, lints
tidy:
    cargo fmt --all
    rustfmt watchword/src/commands/*.rs
    cargo clippy --locked --workspace --all-targets -- -D warnings

# All tests, or those of one package: `just test -p tests --test flows`
test *arguments='--workspace':
    cargo test --locked --no-fail-fast {{ arguments }}

# Writes the generated documents anew: OpenAPI, AsyncAPI, schemas, goldens, the reference
documents:
    UPDATE=1 cargo test --locked -p schemas
    UPDATE=1 cargo test --locked -p watchword committed

# The main job, told step by step
demo:
    cargo run -- demo

# A tarball, a Debian package, checksums
dist:
    deploy/dist

# Licences, second versions of crates, sources; and, where it can be reached, the list of known faults
deny *arguments='licenses bans sources':
    cargo deny check -D warnings {{ arguments }}

# Reads all of deploy/ with the tools of its kinds; `just check --run` runs it in engines
check *arguments:
    deploy/check {{ arguments }}
