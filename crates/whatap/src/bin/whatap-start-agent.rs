fn main() -> std::process::ExitCode {
    whatap::start::main(std::env::args_os())
}
