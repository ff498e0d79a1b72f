#!/bin/sh
# uploads.sh COUNT DIR: writes COUNT files as users upload them below DIR (see kit/demo.rs).
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
cd "$here"
cargo build --quiet -p rg-tests --bin kit-uploads
exec "${CARGO_TARGET_DIR:-target}/debug/kit-uploads" "$1" "$2"
