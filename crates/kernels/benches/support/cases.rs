//! The program around cases whose instructions are counted: `cargo xtask test --only instructions` runs it under valgrind's
//! callgrind. The kernels have such a program, and the engine.
//!
//! Without arguments it lists its cases; with a case and an instruction set it prepares the case and runs it twice. What
//! valgrind counts is [`counted`], the second run: times depend on the machine and its load, instructions do not.
//! Instruction sets are forced, since valgrind knows no AVX-512 and machines differ.

use super::Isa;
use std::process::ExitCode;

/// A case on inputs that are ready.
pub(crate) type Run = Box<dyn FnMut()>;
pub(crate) type Prepare = fn() -> Run;

/// What valgrind counts, by this name.
#[inline(never)]
fn counted(run: &mut Run) {
    run();
}

/// Does what the command line says with one of `cases`.
pub(crate) fn main(cases: &[(&str, Prepare)]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let case = |name: &str| cases.iter().find(|(case, _)| *case == name);
    let isa = |name: &str| Isa::available().into_iter().find(|isa| format!("{isa:?}").to_lowercase() == name);
    let [name, isa_name] = args.as_slice() else {
        cases.iter().for_each(|(case, _)| println!("{case}"));
        return ExitCode::SUCCESS;
    };
    let (Some((_, prepare)), Some(isa)) = (case(name), isa(isa_name)) else {
        eprintln!("expected a case and an instruction set of this machine, got {args:?}");
        return ExitCode::FAILURE;
    };
    Isa::force(Some(isa));
    let mut run = prepare();
    // Scratch grows in the first run.
    run();
    counted(&mut run);
    ExitCode::SUCCESS
}
