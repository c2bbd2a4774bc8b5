//! Generates the Rust types from the schemas, with protox: no system `protoc` is needed.

use std::error::Error;

/// The schemas, relative to this crate, which is also where their imports are looked up.
const SCHEMAS: &[&str] = &["sentry_protos/conduit/v1alpha/publish.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for schema in SCHEMAS {
        println!("cargo:rerun-if-changed={schema}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile(SCHEMAS, ["."])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
