//! Compiles the C++ fence against libtorch's headers, and passes on where libtorch lies.
//!
//! torch-sys says which libtorch it was built with: `LIBTORCH`, or what `.cargo/config.toml` names. An
//! rpath to it lets executables run with no `LD_LIBRARY_PATH`; a build script can say that only for its
//! own package, so `worker/build.rs` repeats it from `DEP_LOCKSTEP_NN_LIBTORCH_LIB`.

use std::env;
use std::path::Path;

fn main() {
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys is a direct dependency");
    let include = Path::new(&lib).parent().expect("it is a `lib` folder").join("include");

    println!("cargo::rerun-if-changed=src/fence.cpp");
    println!("cargo::rerun-if-changed={lib}/../build-version");
    // ATen's parallel loops are OpenMP's, in its headers: without the library that libtorch uses they are serial.
    let openmp = Path::new(&lib).join("libgomp.so.1").exists();
    let mut fence = cc::Build::new();
    if openmp {
        fence.flag("-fopenmp");
    }
    fence
        .cpp(true)
        .std("c++20")
        .include(include.join("torch/csrc/api/include"))
        .include(&include)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .warnings(false) // libtorch's headers have many
        .file("src/fence.cpp")
        .compile("fence");
    if openmp {
        println!("cargo::rustc-link-search=native={lib}");
        println!("cargo::rustc-link-lib=dylib:+verbatim=libgomp.so.1");
    } else {
        println!("cargo::warning=no libgomp.so.1 in {lib}: batch norm will use one thread");
    }

    println!("cargo::metadata=libtorch_lib={lib}");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    // Nothing refers to libtorch_cuda by name, so the linker would leave it out.
    println!("cargo::rustc-link-arg=-Wl,--push-state,--no-as-needed,-ltorch,--pop-state");
}
