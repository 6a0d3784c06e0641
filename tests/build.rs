//! Compiles the library that is loaded into a process under test to make its clock jump and its disk full.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=src/chaos/faults.c");
    let library = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("libfaults.so");
    let mut compiler = cc::Build::new().opt_level(1).get_compiler().to_command();
    compiler.args(["-shared", "-fPIC", "src/chaos/faults.c", "-o"]).arg(&library);
    let status = compiler.status().expect("the C compiler starts");
    assert!(status.success(), "the C compiler failed: {compiler:?}");
    println!("cargo::rustc-env=LOCKSTEP_FAULTS_LIBRARY={}", library.display());
}
