//! What the tests of this folder share: the vectors, and packets as JSON.

#![allow(dead_code, clippy::unwrap_used, reason = "each test uses a part of it")]

pub(crate) mod view;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

/// The folder of this crate.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The vectors of a file: the name of each, its input, and all of it.
pub(crate) fn vectors(file: &str, key: &str) -> Vec<(String, Vec<u8>, Json)> {
    let path = root().join("vectors").join(file).with_extension("json");
    let vectors: Vec<Json> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(!vectors.is_empty());
    let read = |vector: Json| {
        let input = match vector[key].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => STANDARD.decode(vector[format!("{key}-base64")].as_str().unwrap()).unwrap(),
        };
        (vector["name"].as_str().unwrap().to_owned(), input, vector)
    };
    vectors.into_iter().map(read).collect()
}
