#!/bin/sh
# A guided tour: run the census, see how it went, look into the one branch that failed, run that branch again.
# `make demo` calls this. Its spool is new each time: $DEMO_DIR, or .tea/ beside this file.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${DEMO_DIR:-$here/.tea}
rm -rf "$work/demo-spool"
mkdir -p "$work"
export TEA_SPOOL="$work/demo-spool"

say() {
    printf '\n## %s\n' "$1"
}

show() {
    printf '$ %s\n' "$*"
    "$@"
}

say "One branch for each source file of Python's standard library, run by worker processes."
show tea run "$here/census.yaml" --strategy process --output "$work/census.json"

say "The fan-in had one result for each file, in order, and made this of them."
python "$here/measure.py" "$work/census.json"

say "Every branch is a directory in the spool. How did the run go?"
show tea spool status

say "Which branch failed, and why?"
show tea spool list --state failed
job=$(tea spool list --state failed --json | python -c 'import json, sys; print(json.load(sys.stdin)[0]["path"])')
show tea spool show "$job"

say "Its directory holds all that it needs, in plain files."
show ls "$job"

say "So it can be run alone, where it is. (It fails again: the file is Python 2 on purpose.)"
cd "$job"
show tea run workflow.yaml --input input.json --no-spool || true

say "Look around yourself:  tea spool list --spool $TEA_SPOOL"
