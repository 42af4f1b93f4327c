# `just check` never edits; `just fix` does.

# What CI asks of every commit.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace
    cargo bench --workspace --no-run
    cargo deny check

# Formats, and applies what clippy can apply.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# All tests.
test:
    cargo nextest run --workspace
    cargo test --workspace --doc

# The release binary with stock Redis clients and a kill -9.
smoke:
    cargo build --release
    scripts/smoke

# Everything, as CI runs it.
ci:
    .ci/run
