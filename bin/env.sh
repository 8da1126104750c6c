# shellcheck shell=bash
# Read by the commands in this directory, not run by itself: goes to the project's root, and makes Cargo build where
# the Mix compiler lets it build (lib/mix/tank_native/cargo.ex), so that RocksDB is compiled once.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tank_store/target}"
