fn main() -> std::process::ExitCode {
    whatap::stop::main(std::env::args_os())
}
