//! The reference checkpoints that `dev/reference` writes.

mod files;

use std::{fs, path::PathBuf};

pub(crate) use files::Files;

/// The folder of the cases that `dev/reference` writes.
pub(crate) fn reference() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "data", "reference"].iter().collect()
}

/// The names of all cases, sorted.
pub(crate) fn cases() -> Vec<String> {
    let entries = fs::read_dir(reference()).expect("the reference cases are part of the checkout");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a readable folder").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

/// The files of a case.
pub(crate) fn checkpoint(case: &str) -> Files {
    Files::in_folder(&reference().join(case))
}
