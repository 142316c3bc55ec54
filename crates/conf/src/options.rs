//! The table of all options. `docs/options.md` and the tracer's `_options.py` are generated from it.

use crate::value::Kind::{self, Bool, Choice, Int, List, Text};

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// The key in `whatap.conf`.
    pub name: &'static str,
    /// Other keys that mean the same.
    pub aliases: &'static [&'static str],
    /// Environment variables besides the one that follows from the name.
    pub env: &'static [&'static str],
    pub kind: Kind,
    pub unit: &'static str,
    /// Normalised, as [`Kind::normalise`] returns it.
    pub default: &'static str,
    pub reader: Reader,
    pub reload: Reload,
    /// Never shown, never handed on in `WHATAP_LAUNCH`.
    pub secret: bool,
    pub help: &'static str,
}

/// Which programs use an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader(u8);

impl Reader {
    pub const LAUNCHER: Self = Self(1);
    pub const TRACER: Self = Self(2);
    pub const COLLECTOR: Self = Self(4);
    pub const LT: Self = Self(3);
    pub const TC: Self = Self(6);
    pub const LTC: Self = Self(7);
    pub const LC: Self = Self(5);
    /// Accepted, because files of other versions hold it, and not in use yet.
    pub const NONE: Self = Self(0);

    pub fn includes(self, other: Self) -> bool {
        other.0 != 0 && self.0 & other.0 == other.0
    }
}

/// When a changed value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Within seconds.
    Hot,
    /// At the collector's next connection.
    Reconnect,
    /// When the application starts again.
    Restart,
}

impl Opt {
    /// `WHATAP_` and the name in capitals, dots as `_`; a leading `whatap.` is not repeated.
    pub fn variable(&self) -> String {
        let name = self
            .name
            .strip_prefix("whatap.")
            .or(self.name.strip_prefix("whatap_"))
            .unwrap_or(self.name);
        format!("WHATAP_{}", name.replace('.', "_").to_ascii_uppercase())
    }

    pub(crate) fn is_called(&self, key: &str) -> bool {
        self.name == key || self.aliases.contains(&key)
    }

    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    const fn env(self, env: &'static [&'static str]) -> Self {
        Self { env, ..self }
    }

    const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn secret(self) -> Self {
        Self {
            secret: true,
            ..self
        }
    }
}

/// The option of that name or alias.
pub fn find(key: &str) -> Option<&'static Opt> {
    position(key).map(|at| &OPTIONS[at])
}

/// Two spellings of one key.
pub fn is_same(a: &str, b: &str) -> bool {
    a == b || position(a).is_some_and(|option| position(b) == Some(option))
}

pub(crate) fn position(key: &str) -> Option<usize> {
    OPTIONS.iter().position(|o| o.is_called(key))
}

const NAME: Kind = Text(50);
const LINE: Kind = Text(4096);
const COUNT: i64 = 1_000_000;

const fn opt(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    reader: Reader,
    reload: Reload,
    help: &'static str,
) -> Opt {
    Opt {
        name,
        aliases: &[],
        env: &[],
        kind,
        unit: "",
        default,
        reader,
        reload,
        secret: false,
        help,
    }
}

use Reader as R;
use Reload::{Hot, Reconnect, Restart};

#[rustfmt::skip]
pub static OPTIONS: &[Opt] = &[
    // Where data goes.
    opt("license", Text(1024), "", R::COLLECTOR, Reconnect, "Project access key: names the project and proves that this host may report to it.")
        .aliases(&["accesskey"]).env(&["WHATAP_ACCESSKEY", "license", "accesskey"]).secret(),
    opt("whatap.server.host", List, "", R::LC, Reconnect, "Servers to report to, tried in turn. None: this user's local server.")
        .env(&["whatap_server_host"]),
    opt("whatap.server.port", Int(1, 65535), "6600", R::COLLECTOR, Reconnect, "TCP port of all of them.").unit("port")
        .env(&["whatap_server_port"]),
    opt("whatap.server.protocol", Choice(&["auto", "otlp", "whatap"]), "auto", R::COLLECTOR, Reconnect,
        "How to talk to the server: `auto` proves the licence to a server of ours, `otlp` sends plain OTLP/HTTP to any backend, `whatap` is the vendor's TCP protocol."),
    opt("whatap.server.endpoint", LINE, "", R::COLLECTOR, Reconnect, "Base URL of an OTLP/HTTP backend, used with protocol `otlp` instead of host and port."),
    opt("whatap.server.headers", List, "", R::COLLECTOR, Reconnect, "Headers for that backend, `name=value` each.")
        .secret(),
    opt("local_server", Choice(&["auto", "true", "false"]), "auto", R::LC, Restart,
        "Start this user's local server when no server is configured: `auto` does so only from a terminal."),
    opt("local_server_data_dir", LINE, "", R::LC, Restart, "Data directory of the local server. Empty: the user's data directory.").unit("path")
        .env(&["WHATAP_SERVER_DATA_DIR"]),

    // Who reports.
    opt("app_name", NAME, "", R::LTC, Reconnect, "Name of the application. Empty: the name of the directory that it is started in.")
        .env(&["app_name", "OTEL_SERVICE_NAME"]),
    opt("app_process_name", NAME, "", R::COLLECTOR, Reconnect, "Name of the process inside the application, for the object name.")
        .env(&["app_process_name"]),
    opt("object_name", Text(200), "{type}-{ip2}-{ip3}-{process}", R::COLLECTOR, Reconnect,
        "Pattern of the name of one instance: `{type}` (`app_name`), `{process}` (`app_process_name`), `{hostname}`, `{ip0}` to `{ip3}`, `{ips}`, `{port}`, `{docker}`, `{cmd}`, `{cmd_args}`, `{cmd_full}`, `{pid}`, `{env.NAME}`. An unknown or empty one leaves its bare name. Not set: the host, with `app_process_name`.")
        .aliases(&["whatap.name"]).env(&["WHATAP_ONAME", "WHATAP_NAME"]),
    opt("whatap.okind", Text(200), "", R::COLLECTOR, Reconnect, "Group of instances, a Kubernetes deployment for example. Not set: the pod's name (`POD_NAME`, `PODNAME`) without its last part.").env(&["OKIND", "ENV_OKIND"]),
    opt("whatap.onode", Text(200), "", R::COLLECTOR, Reconnect, "Node that the instance runs on.").env(&["NODE_NAME", "NODE_IP"]),

    // Switches.
    opt("enabled", Bool, "true", R::LTC, Hot, "Master switch. Off: the application runs as if we were not installed."),
    opt("apm_enabled", Bool, "true", R::LTC, Restart, "Trace applications. Absent means on."),
    opt("debug", Bool, "false", R::TC, Hot, "Write more into the logs: rings, accounts of ended processes, options, instrumented modules."),
    opt("use_env_first", Bool, "true", R::LC, Restart, "The environment wins over the file. `false`: the file wins."),
    opt("trace_child_process", Choice(&["auto", "always", "never"]), "auto", R::TRACER, Restart,
        "Trace Python programs that the application starts: `auto` leaves out installers and compilers such as pip."),
    opt("standalone_enabled", Bool, "false", R::TRACER, Restart,
        "A program without a framework (a script, a cron job, a management command) is one transaction, from its start to its end."),
    opt("standalone_type", Choice(&["single-transaction", "multiple-transaction"]), "single-transaction", R::TRACER, Restart,
        "With `standalone_enabled`: the whole program is one transaction, or each call of the functions of `standalone_transaction_patterns` is."),
    opt("standalone_transaction_patterns", List, "", R::TRACER, Restart,
        "With `standalone_type=multiple-transaction`: `module:function`, `module:Class.method`; `__main__:function` for the script's own."),
    opt("ignore_whatap_stdout", Bool, "false", R::LAUNCHER, Restart, "The launcher prints nothing at all, on stderr neither."),

    // What becomes a transaction, and its name.
    opt("trace_ignore_url_set", List, "", R::TC, Hot, "Paths that are not traced; `*` stands for anything."),
    opt("trace_ignore_url_prefix", List, "", R::TC, Hot, "Paths that start with one of these are not traced."),
    opt("web_static_content_extensions", List, "js,htm,html,gif,png,jpg,css,swf,ico", R::TC, Hot, "Paths that end in one of these extensions are not traced."),
    opt("ignore_http_method", List, "", R::TC, Hot, "HTTP methods that are not traced."),
    opt("trace_auto_normalize_enabled", Bool, "true", R::TC, Hot, "Group requests by the framework's route (`/orders/<id>`) instead of the path."),
    opt("trace_normalize_enabled", Bool, "true", R::COLLECTOR, Hot, "Replace numbers and ids in paths that have no route."),
    opt("trace_normalize_urls", List, "", R::COLLECTOR, Hot, "Patterns for paths that have no route: `/a/{v}/b`, `/a/*/b`."),
    opt("hook_method_patterns", List, "", R::TRACER, Restart, "Functions that become steps: `module:function`, `module:Class.method`, `module:Class.*`; the program's own script is `__main__`."),
    opt("hook_service_patterns", List, "", R::TRACER, Restart, "Functions that become transactions, written alike."),
    opt("ignore_instrumentation_set", List, "", R::TRACER, Restart, "Libraries that are left alone, by module name."),
    opt("trace_http_client_ip_header_key", Text(200), "X-Forwarded-For", R::TRACER, Hot, "Header with the client's address, believed from `trusted_proxies` only.").unit("header"),
    opt("trusted_proxies", List, "", R::TRACER, Hot, "Addresses whose client address header is believed."),
    opt("trace_user_enabled", Bool, "true", R::TRACER, Hot, "Keep the client's address, by which users are counted."),
    opt("transaction_status_error_enable", Bool, "false", R::TC, Hot, "HTTP status 400 and above marks a transaction as failed."),
    opt("ignore_exceptions", List, "", R::TRACER, Hot, "Exception classes, with or without their module, that do not mark a transaction as failed; nor do those derived from them."),

    // What is kept of a transaction.
    opt("profile_basetime", Int(0, 3_600_000), "500", R::COLLECTOR, Hot, "Steps of transactions at least this slow are always kept.").unit("ms"),
    opt("profile_rate", Int(0, 100), "10", R::COLLECTOR, Hot, "Share of the other transactions whose steps are kept; every transaction is counted and listed.").unit("%"),
    opt("profile_step_max_count", Int(0, 10_000), "1000", R::TRACER, Hot, "Steps of one transaction; beyond them equal ones are added up.").unit("steps")
        .aliases(&["profile_step_heavy_count"]),
    opt("trace_error_callstack_depth", Int(0, 500), "50", R::TRACER, Hot, "Frames kept of an error's stack.").unit("frames"),
    opt("trace_cpu", Bool, "false", R::TRACER, Hot, "Measure the CPU time of each transaction (one system call more)."),
    opt("trace_logging_enabled", Bool, "true", R::TRACER, Restart, "Keep records of `logging` with the transaction that wrote them.")
        .aliases(&["logsink_trace_enabled"]),
    opt("trace_logging_level", Choice(&["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]), "WARNING", R::TRACER, Hot, "Lowest level that is kept."),
    opt("trace_sql_normalize_enabled", Bool, "true", R::NONE, Hot, "Literals always leave SQL texts before anything is stored; this cannot be switched off."),

    // Running transactions.
    opt("trace_active_transaction_slow_time", Int(1, 86_400_000), "3000", R::COLLECTOR, Hot, "A running transaction older than this is slow.").unit("ms"),
    opt("trace_active_transaction_very_slow_time", Int(1, 86_400_000), "8000", R::COLLECTOR, Hot, "A running transaction older than this is very slow.").unit("ms"),
    opt("active_stack_enabled", Bool, "true", R::TC, Hot, "Take stacks of long-running transactions at their next step."),
    opt("active_stack_second", Int(1, 3600), "10", R::COLLECTOR, Hot, "Time between two stacks of one transaction.").unit("s"),
    opt("active_stack_thread", Bool, "false", R::TRACER, Restart,
        "A thread takes the stacks, so that a transaction stuck inside one call is seen too. Python 3.12 and newer warn of a fork beside a thread."),
    opt("trace_active_callstack_depth", Int(1, 500), "50", R::TRACER, Hot, "Frames kept of such a stack.").unit("frames"),

    // Of other agents' files, planned here.
    opt("trace_user_using_ip", Bool, "true", R::NONE, Hot, "Count users by the client's address."),
    opt("trace_active_transaction_lost_time", Int(1, 86_400_000), "300000", R::NONE, Hot, "A running transaction without an end is given up after this.").unit("ms"),
    opt("mtrace_rate", Int(0, 100), "10", R::NONE, Hot, "Share of transactions that begin a trace over several applications; at present all do.").unit("%"),
    opt("stat_enabled", Bool, "true", R::NONE, Hot, "Statistics; the server makes them, whatever this says."),
    opt("logsink_enabled", Bool, "false", R::NONE, Hot, "Send lines of log files."),
    opt("profile_http_header_enabled", Bool, "false", R::NONE, Hot, "Keep request headers."),
    opt("profile_http_parameter_enabled", Bool, "false", R::NONE, Hot, "Keep request parameters."),
    opt("profile_sql_param_enabled", Bool, "false", R::NONE, Hot, "Keep the values that are bound to statements."),
    opt("query_string_enabled", Bool, "false", R::NONE, Hot, "Keep query strings."),

    // The collector itself.
    opt("agent_linger_sec", Int(0, 31_536_000), "60", R::COLLECTOR, Hot, "The collector ends this long after its last application; 0 = never.").unit("s"),
    opt("ring_size_kb", Choice(&["256", "512", "1024", "2048", "4096"]), "256", R::COLLECTOR, Restart, "Memory shared with each interpreter.").unit("KiB"),
    opt("ring_max_mb", Int(1, 65_536), "1024", R::COLLECTOR, Hot, "All rings together; further interpreters are not traced.").unit("MiB"),
    opt("ring_max_count", Int(1, COUNT), "4000", R::COLLECTOR, Hot, "Number of rings; further interpreters are not traced."),
    opt("spool_max_mb", Int(1, 1_048_576), "1024", R::COLLECTOR, Hot, "Disk used while the server is away; the oldest goes first and is counted.").unit("MiB"),
    opt("spool_max_hours", Int(1, 8760), "24", R::COLLECTOR, Hot, "Age after which unsent data is dropped and counted.").unit("h"),
    opt("counter_enabled", Bool, "true", R::COLLECTOR, Hot, "Figures of processes and host every five seconds."),
    opt("log_keep_days", Int(1, 3650), "7", R::COLLECTOR, Hot, "Older log files are deleted.").unit("days"),
    opt("log_rotation_enabled", Bool, "true", R::COLLECTOR, Hot, "One log file per day. Off: one file, started anew when it is full."),
    opt("net_udp_port", Int(0, 65535), "0", R::NONE, Restart, "Loopback port for tracers of other versions; 0 = none.").unit("port"),
    opt("net_udp_host", Text(100), "127.0.0.1", R::NONE, Restart, "Address of that port."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn defaults_are_normalised_values_of_their_kind() {
        for o in OPTIONS {
            assert_eq!(
                o.kind.normalise(o.default).as_deref(),
                Ok(o.default),
                "{}",
                o.name
            );
        }
    }

    #[test]
    fn a_name_belongs_to_one_option() {
        let mut seen = HashSet::new();
        for o in OPTIONS {
            for name in std::iter::once(&o.name).chain(o.aliases) {
                assert!(seen.insert(*name), "{name} twice");
            }
        }
        let mut variables = HashSet::new();
        for o in OPTIONS {
            for name in std::iter::once(o.variable()).chain(o.env.iter().map(|e| (*e).to_owned())) {
                assert!(variables.insert(name.clone()), "{name} twice");
            }
        }
    }

    #[test]
    fn names_survive_the_launch_value() {
        for o in OPTIONS {
            assert!(
                o.name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')),
                "{}",
                o.name
            );
            assert!(!o.name.starts_with('_'));
        }
    }

    #[test]
    fn variables_follow_one_rule() {
        assert_eq!(
            find("whatap.server.host").unwrap().variable(),
            "WHATAP_SERVER_HOST"
        );
        assert_eq!(find("app_name").unwrap().variable(), "WHATAP_APP_NAME");
        assert_eq!(find("accesskey").unwrap().variable(), "WHATAP_LICENSE");
    }
}
