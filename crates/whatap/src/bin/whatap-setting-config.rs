fn main() -> std::process::ExitCode {
    whatap::setting_config::main(std::env::args_os())
}
