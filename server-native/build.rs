//! What becomes part of the program: the demo models, and the page if `INKLING_PAGE` names the folder that has it.
//!
//! The compiler does not see new files, so cargo is told what to watch. The page's files become a table in
//! `OUT_DIR/page.rs` for `src/http/page.rs`. Demo models in that folder are named there, not embedded a second time.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

const DEMO: &str = "models/demo/";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../models/demo");
    println!("cargo::rerun-if-env-changed=INKLING_PAGE");
    let mut table = String::from("[\n");
    if let Some(folder) = env::var_os("INKLING_PAGE").filter(|folder| !folder.is_empty()) {
        let folder = PathBuf::from(folder);
        assert!(
            folder.join("index.html").is_file(),
            "INKLING_PAGE: expected a folder with index.html (`cargo xtask page` makes it), got {}",
            folder.display()
        );
        println!("cargo::rerun-if-changed={}", folder.display());
        for path in files(&folder) {
            entry(&mut table, &folder, &path);
        }
    }
    table.push(']');
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    fs::write(Path::new(&out).join("page.rs"), table).expect("OUT_DIR can be written");
}

/// A line for the file at `path` of the page.
fn entry(table: &mut String, folder: &Path, path: &str) {
    let file = folder.join(path);
    let bytes = read(&file);
    let mut etag = String::new();
    for byte in &Sha256::digest(&bytes)[..16] {
        write!(etag, "{byte:02x}").expect("a string takes all that is written");
    }
    let embed =
        |file: &Path| format!("include_bytes!({:?})", file.to_str().expect("read above by this name"));
    // Compared, because a folder may be older than this checkout.
    let demo = path
        .strip_prefix(DEMO)
        .filter(|path| fs::read(Path::new("..").join(DEMO).join(path)).ok() == Some(bytes));
    let content = demo.map_or_else(
        || embed(&file),
        |path| format!("crate::models::demo_file({path:?}).expect(\"found there at build time\")"),
    );
    let compressed = folder.join(format!("{path}.br"));
    let brotli = if compressed.is_file() { format!("Some({})", embed(&compressed)) } else { "None".into() };
    writeln!(table, "    File {{ path: {path:?}, etag: {etag:?}, content: {content}, brotli: {brotli} }},")
        .expect("a string takes all that is written");
}

/// All files below `folder` by their paths in it, compressed copies left out.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in
            fs::read_dir(&next).unwrap_or_else(|error| panic!("cannot read {}: {error}", next.display()))
        {
            let path = entry.expect("a folder that can be opened can be listed").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inner = path.strip_prefix(folder).expect("listed below it");
            let name = inner.to_str().unwrap_or_else(|| panic!("{} is not Unicode", path.display()));
            if !name.ends_with(".br") {
                found.push(name.replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

fn read(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()))
}
