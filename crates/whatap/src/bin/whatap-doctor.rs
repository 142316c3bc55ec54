fn main() -> std::process::ExitCode {
    whatap::doctor::main(std::env::args_os())
}
