//! The executables here find libtorch where `lockstep-nn` was linked with it, with no `LD_LIBRARY_PATH`.

fn main() {
    let lib = std::env::var("DEP_LOCKSTEP_NN_LIBTORCH_LIB").expect("lockstep-nn passes it on");
    println!("cargo::rerun-if-changed={lib}/../build-version");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    // Nothing refers to libtorch_cuda by name, so the linker would leave it out.
    println!("cargo::rustc-link-arg=-Wl,--push-state,--no-as-needed,-ltorch,--pop-state");
}
