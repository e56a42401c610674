//! The `psdb` binary: hands over to the `cli` library.

fn main() -> std::process::ExitCode {
    cli::main()
}
