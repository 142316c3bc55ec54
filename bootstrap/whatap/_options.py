# Generated from the option table by `cargo test -p whatap-conf`: what the tracer reads, and the defaults.
# Values arrive normalised: true/false, plain numbers, lists joined with commas.
DEFAULTS = {
    "app_name": "",
    "enabled": True,
    "apm_enabled": True,
    "trace_child_process": "auto",
    "trace_ignore_url_set": (),
    "trace_ignore_url_prefix": (),
    "web_static_content_extensions": ("js", "htm", "html", "gif", "png", "jpg", "css", "swf", "ico"),
    "ignore_http_method": (),
    "trace_auto_normalize_enabled": True,
    "hook_method_patterns": (),
    "hook_service_patterns": (),
    "ignore_instrumentation_set": (),
    "trace_http_client_ip_header_key": "X-Forwarded-For",
    "trusted_proxies": (),
    "transaction_status_error_enable": False,
    "profile_step_max_count": 1000,
    "trace_cpu": False,
    "trace_logging_enabled": True,
    "trace_logging_level": "WARNING",
    "active_stack_enabled": True,
}
