# Generated from Cargo.toml by `cargo test -p whatap-conf`.
VERSION = "3.0.0"
