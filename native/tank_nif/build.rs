//! Keeps the library mapped and usable for the life of the process: threads of ours run in it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // The BEAM unmaps the library of a purged module.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        // No static object of RocksDB is destroyed while threads use it: src/exit.rs.
        println!("cargo:rustc-cdylib-link-arg=-Wl,--wrap=__cxa_atexit");
    }
}
