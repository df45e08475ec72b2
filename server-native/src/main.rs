//! The program `inkling`: see [`inkling_server::cli`].

fn main() -> std::process::ExitCode {
    inkling_server::cli::main()
}
