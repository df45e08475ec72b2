//! Builds again when the demo models change: they become part of the program, and the compiler does not see new files.

fn main() {
    println!("cargo::rerun-if-changed=../models/demo");
}
