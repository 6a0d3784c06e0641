//! Compiles the `.proto` files without protoc, and keeps their descriptors for gRPC reflection.

use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 4] = [
    "lockstep/v1/events.proto",
    "lockstep/v1/operator.proto",
    "lockstep/v1/session.proto",
    "lockstep/v1/status.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=lockstep");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("lockstep.v1.bin");
    std::fs::write(out, descriptors.encode_to_vec())?;
    // Encoded once, and shared by all messages that hold it.
    let shared = ".lockstep.v1.World.members";
    tonic_prost_build::configure().bytes(shared).compile_fds(descriptors)?;
    Ok(())
}
