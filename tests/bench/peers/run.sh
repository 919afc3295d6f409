#!/bin/sh
# The same job by meantime and by its peers: `tests/bench/peers/run.sh [EVENTS]`. What it needs and prints: README.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
PEERS_CACHE=${PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/meantime-peers}
export PEERS_CACHE
mkdir -p "$PEERS_CACHE"

# Python: the first of these that is 3.11 or 3.12 (Bytewax has no wheel for later ones).
venv=${PEERS_VENV:-$PEERS_CACHE/venv}
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
    for python in ${PEERS_PYTHON:-python3.12 python3.11 python3}; do
        "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && break
        python=
    done
    [ -n "$python" ] || { echo "Python 3.11 or 3.12 is needed: set PEERS_PYTHON" >&2; exit 69; }
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/requirements.txt"
fi

# Java: the broker of the tests, Kafka Streams, Flink, each with its own class path.
classpath() {
    pom=$1 name=$2
    if ! cmp -s "$pom" "$PEERS_CACHE/$name.xml"; then
        mvn -q -B -f "$pom" dependency:build-classpath -Dmdep.outputFile="$PEERS_CACHE/$name.classpath"
        cp "$pom" "$PEERS_CACHE/$name.xml"
    fi
}
classpath "$root/tests/broker/pom.xml" broker
classpath "$here/java/streams.xml" streams
classpath "$here/java/flink.xml" flink
rm -rf "$PEERS_CACHE/classes"
javac --release 17 -cp "$(cat "$PEERS_CACHE/streams.classpath" "$PEERS_CACHE/flink.classpath" | paste -s -d :)" \
    -d "$PEERS_CACHE/classes" "$here"/java/src/peers/*.java

if [ -z "${MEANTIME:-}" ]; then
    cargo build --release --manifest-path "$root/Cargo.toml" --bin meantime
    MEANTIME=${CARGO_TARGET_DIR:-$root/target}/release/meantime
fi
export MEANTIME
exec "$venv/bin/python" "$here/bench.py" "$@"
