fn main() -> std::process::ExitCode {
    whatap::setting_config::llm_main(std::env::args_os())
}
