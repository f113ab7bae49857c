#!/bin/sh
# Everything a change must pass: style, types, the rules' form, spelling, then the tests.
# Runs from the repository's root inside the environment (`./run test`). A failed check does not
# stop the ones after it; extra arguments go to pytest (`./run test -k calendars -n 0`).
set -u
failed=

check() {
    echo "== $*"
    "$@" || failed="$failed
    $*"
}

check ruff check
check ruff format --check
check mypy workflow/lib
check snakefmt --check Snakefile workflow
check snakemake --lint
check codespell

# pytest comes last, so that its closing line is the last one; what failed before it stands above it.
[ -z "$failed" ] || echo "== failed:$failed" >&2
echo "== pytest"
pytest -n 2 --dist loadfile "$@" && [ -z "$failed" ]
