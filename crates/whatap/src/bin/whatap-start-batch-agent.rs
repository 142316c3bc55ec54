fn main() -> std::process::ExitCode {
    whatap::batch::main(std::env::args_os())
}
