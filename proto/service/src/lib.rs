//! What both binaries need as processes, and nothing about training.
//!
//! * [`telemetry`]: logs, with `--log-format` and `RUST_LOG`;
//! * [`metrics_http`]: the HTTP server of `/metrics` and `/healthz`;
//! * [`listen`]: binding a port, with a sentence where that fails;
//! * [`tls_args`]: the options that name certificates and keys;
//! * [`exit`]: from a result to an exit code, the error printed once.
//!
//! Beside `lockstep-proto`, since that crate sees no clocks, files or sockets of its own.

pub mod exit;
pub mod listen;
pub mod metrics_http;
pub mod telemetry;
pub mod tls_args;
