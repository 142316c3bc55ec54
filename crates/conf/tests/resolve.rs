//! What users write, and what the programs make of it.

use std::fs;
use whatap_conf::{Env, Files, Launch, Resolved, Source, resolve, resolve_launch};

struct Scene {
    temp: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Scene {
    fn new(conf: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("whatap.conf"), conf).unwrap();
        Self {
            temp,
            env: Vec::new(),
        }
    }

    fn project(self, text: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = self.temp.path().join("pyproject.toml");
        fs::write(&path, format!("[tool.whatap]\n{text}")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    fn files(&self) -> Files {
        Files::locate(Some(self.temp.path()), &Env::default(), self.temp.path()).0
    }

    fn resolve(&self) -> Resolved {
        resolve(&self.files(), &self.env.iter().cloned().collect(), [])
    }

    fn findings(&self) -> Vec<String> {
        let home = format!("{}/", self.files().home.display());
        self.resolve()
            .findings
            .iter()
            .map(|f| f.to_string().replace(&home, ""))
            .collect()
    }
}

#[test]
fn the_command_line_wins_over_environment_file_project_and_default() {
    let scene =
        Scene::new("app_name=file\n").project("app_name = \"project\"\nprofile_basetime = 7\n");
    assert_eq!(scene.resolve().text("app_name"), "file");
    assert_eq!(scene.resolve().int("profile_basetime"), 7);
    let scene = scene.env("app_name", "kubernetes");
    assert_eq!(scene.resolve().text("app_name"), "kubernetes");
    let scene = scene.env("WHATAP_APP_NAME", "environment");
    assert_eq!(scene.resolve().text("app_name"), "environment");
    assert_eq!(
        scene.resolve().source("app_name"),
        &Source::Env("WHATAP_APP_NAME".into())
    );
    let env = scene.env.iter().cloned().collect();
    let said = resolve(&scene.files(), &env, [("app_name", "said")]);
    assert_eq!(said.text("app_name"), "said");
    assert_eq!(said.findings, []);
}

#[test]
fn the_file_may_ask_to_win_over_the_environment() {
    let scene =
        Scene::new("use_env_first=no\napp_name=file\n").env("WHATAP_APP_NAME", "environment");
    assert_eq!(scene.resolve().text("app_name"), "file");
}

#[test]
fn every_bad_line_is_named_with_what_is_used_instead() {
    let scene = Scene::new(concat!(
        "# mine\n\nwhat is this\nprofile_basetime=fast\nlisence=x\ndebug=maybe\nstat_domain_enabled=true\n",
        "app_name=a\napp_name=b # c\nprofile_rate=101\n",
    ));
    assert_eq!(
        scene.findings(),
        [
            "whatap.conf:3: line ignored: it has no `=`",
            "whatap.conf:4: profile_basetime: `fast` is not a whole number; using `500`",
            "whatap.conf:5: lisence: unknown option, ignored; did you mean `license`?",
            "whatap.conf:6: debug: `maybe` is neither true nor false; using `false`",
            "whatap.conf:7: stat_domain_enabled: not used by this version",
            "whatap.conf:8: app_name: set again in line 9, which counts",
            "whatap.conf:9: app_name: ` #` starts no comment here; it is part of the value",
            "whatap.conf:10: profile_rate: `101` is not between 0 and 100; using `10`",
        ]
    );
}

#[test]
fn a_bad_value_falls_back_to_the_next_place_and_not_to_the_default() {
    let scene = Scene::new("profile_basetime=200\n").env("WHATAP_PROFILE_BASETIME", "soon");
    assert_eq!(scene.resolve().int("profile_basetime"), 200);
    assert_eq!(
        scene.findings(),
        ["WHATAP_PROFILE_BASETIME: `soon` is not a whole number; using `200`"]
    );
}

#[test]
fn placeholders_are_named_and_the_secret_is_not_shown() {
    let secret = "xxxxxxxxxxxxxx-xxxxxxxxxxxxxx-secret";
    let scene = Scene::new(&format!("license={secret}\nwhatap.server.host=<host>\n"));
    let findings = scene.findings();
    assert_eq!(
        findings[0],
        "whatap.conf:1: license: is not a project access key (a placeholder?)"
    );
    assert_eq!(
        findings[1],
        "whatap.conf:2: whatap.server.host: `<host>` is a placeholder"
    );
    assert!(!findings.join("").contains("secret"));
    assert!(scene.resolve().licence_finding().is_some());
}

#[test]
fn a_server_without_a_licence_is_an_error_and_none_is_needed_locally() {
    assert!(Scene::new("whatap.server.host=h\n").findings()[0].contains("license: is missing"));
    assert_eq!(Scene::new("").findings(), [""; 0]);
    assert!(Scene::new("").resolve().is_local());
}

#[test]
fn settings_that_need_each_other_are_missed() {
    let endpoint = Scene::new("whatap.server.endpoint=http://127.0.0.1:4318\n");
    assert!(endpoint.findings()[0].starts_with("whatap.conf:1: whatap.server.endpoint: not used"));
    assert!(endpoint.resolve().is_local());
    let endpoint = endpoint.env("WHATAP_SERVER_PROTOCOL", "otlp");
    assert_eq!(endpoint.findings(), [""; 0]);
    assert!(!endpoint.resolve().is_local());
    assert!(
        Scene::new("whatap.server.protocol=otlp\n").findings()[0]
            .contains("whatap.server.endpoint")
    );
    assert!(Scene::new("whatap.server.protocol=whatap\n").findings()[0].contains("not built yet"));
}

#[test]
fn absent_means_on_and_debug_in_the_environment_is_not_ours() {
    let scene =
        Scene::new("license=x21og000g40o4-xa1g7104gk2oc-xq3gf00000000\nwhatap.server.host=h\n")
            .env("debug", "true");
    let resolved = scene.resolve();
    assert!(resolved.is_on());
    assert!(!resolved.bool("debug"));
    assert!(
        !Scene::new("")
            .env("WHATAP_DEBUG", "false")
            .resolve()
            .bool("debug")
    );
    for yes in ["True", "1", "yes", "on"] {
        assert!(
            Scene::new(&format!("debug={yes}\n"))
                .resolve()
                .bool("debug"),
            "{yes}"
        );
    }
}

#[test]
fn a_launch_keeps_its_precedence_when_the_file_changes() {
    let scene = Scene::new("profile_basetime=100\ntrace_cpu=true\n")
        .env("WHATAP_PROFILE_BASETIME", "7")
        .env("WHATAP_LICENSE", "k");
    let mut resolved = scene.resolve();
    resolved.set_default_name("shop");
    let mut launch = Launch::new();
    resolved.files.describe(&mut launch);
    resolved.describe(&mut launch);
    let home = scene.files().home;
    assert_eq!(
        launch.to_string(),
        format!(
            "1;_home={};_app=shop;?profile_basetime=7;trace_cpu=true",
            home.display()
        )
    );

    fs::write(
        home.join("whatap.conf"),
        "profile_basetime=300\nprofile_rate=5\n",
    )
    .unwrap();
    let later = resolve_launch(&Launch::parse(&launch.to_string()).unwrap()).unwrap();
    assert_eq!(later.int("profile_basetime"), 7);
    assert_eq!(later.int("profile_rate"), 5);
    assert!(
        !later.bool("trace_cpu"),
        "a removed key returns to its default"
    );
    assert_eq!(later.app_name(), "shop");
    assert_eq!(
        later.changes(&resolved).map(|o| o.name).collect::<Vec<_>>(),
        ["license", "profile_rate", "trace_cpu"]
    );
}

#[test]
fn a_file_that_asks_to_win_does_so_later_too() {
    let scene = Scene::new("use_env_first=false\n")
        .env("WHATAP_PROFILE_BASETIME", "7")
        .env("WHATAP_LICENSE", "k");
    let home = scene.files().home;
    let env = scene.env.iter().cloned().collect();
    let resolved = resolve(&scene.files(), &env, [("profile_rate", "1")]);
    let mut launch = Launch::new();
    resolved.files.describe(&mut launch);
    resolved.describe(&mut launch);
    let text = launch.to_string();
    assert!(
        text.ends_with(";?profile_basetime=7;!profile_rate=1"),
        "{text}"
    );
    let values = |conf: &str| {
        fs::write(home.join("whatap.conf"), conf).unwrap();
        let later = resolve_launch(&launch).unwrap();
        (
            later.int("profile_basetime"),
            later.int("profile_rate"),
            later.text("license").to_owned(),
        )
    };
    let file = "license=f\nprofile_basetime=8\nprofile_rate=2\n";
    assert_eq!(values(file), (7, 1, "k".into()));
    let file = format!("use_env_first=false\n{file}");
    assert_eq!(values(&file), (8, 1, "f".into()));
    assert_eq!(values("use_env_first=false\n"), (7, 1, "k".into()));
}

#[test]
fn the_environment_that_a_name_needs_travels_with_the_launch() {
    let scene = Scene::new("object_name={env.POD}-{type}\n")
        .env("POD", "p;1")
        .env("OTHER", "x");
    let mut launch = Launch::new();
    scene.resolve().describe(&mut launch);
    assert_eq!(launch.to_string(), "1;_env.POD=p%3B1");
}

#[test]
fn the_function_list_of_old_manuals_is_read_and_the_option_wins() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new("");
    let plugin = scene.files().home.join("plugin.json");
    fs::write(&plugin, r#"{"m": ["f"]}"#).unwrap();
    let mode = |bits| fs::set_permissions(&plugin, fs::Permissions::from_mode(bits)).unwrap();
    mode(0o644);
    assert_eq!(scene.resolve().text("hook_method_patterns"), "m:f");
    mode(0o666);
    assert_eq!(scene.resolve().text("hook_method_patterns"), "");
    mode(0o644);
    fs::write(scene.files().config, "hook_method_patterns=n:g\n").unwrap();
    assert_eq!(scene.resolve().text("hook_method_patterns"), "n:g");
}

#[test]
fn a_pod_without_its_last_part_is_a_group_unless_another_is_named() {
    let group = |scene: &Scene| {
        let here = scene.resolve();
        let mut launch = Launch::new();
        here.files.describe(&mut launch);
        here.describe(&mut launch);
        let later = resolve_launch(&Launch::parse(&launch.to_string()).unwrap()).unwrap();
        let [here, later] = [here, later].map(|r| r.text("whatap.okind").to_owned());
        assert_eq!(here, later);
        here
    };
    let pod = |conf| Scene::new(conf).env("PODNAME", "shop-7c9d-x2x");
    assert_eq!(group(&pod("")), "shop-7c9d");
    assert_eq!(group(&pod("").env("POD_NAME", "plain")), "plain");
    assert_eq!(group(&pod("whatap.okind=mine\n")), "mine");
    assert_eq!(group(&pod("").env("ENV_OKIND", "theirs")), "theirs");
    assert_eq!(group(&Scene::new("")), "");
}

#[test]
fn a_key_for_parameters_is_pointed_out_once_and_not_read() {
    let scene = Scene::new("");
    let file = scene.files().home.join("paramkey.txt");
    fs::write(file, "secret").unwrap();
    assert_eq!(
        scene.findings(),
        ["paramkey.txt: not used: parameters are not recorded"]
    );
    assert_eq!(scene.resolve().findings_to_log(), [""; 0]);
}

#[test]
fn values_that_are_no_text_are_named_and_not_shown() {
    use std::os::unix::ffi::OsStringExt as _;
    let scene = Scene::new("app_name=file\n");
    let bytes = std::ffi::OsString::from_vec(b"\xb0\xa1".to_vec());
    let env = ["WHATAP_APP_NAME", "WHATAP_LICENSE"].map(|name| (name, bytes.clone()));
    let resolved = resolve(&scene.files(), &env.into_iter().collect(), []);
    let said: Vec<String> = resolved.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["WHATAP_LICENSE", "WHATAP_APP_NAME"]
            .map(|name| format!("{name}: ignored: its value is not UTF-8"))
    );
    assert_eq!(resolved.text("app_name"), "file");
}

#[test]
fn unreadable_files_are_one_finding() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("whatap.conf")).unwrap();
    let (files, _) = Files::locate(Some(temp.path()), &Env::default(), temp.path());
    let resolved = resolve(&files, &Env::default(), []);
    assert_eq!(resolved.findings.len(), 1);
    assert!(
        resolved.findings[0]
            .to_string()
            .contains("not a regular file")
    );
}

#[test]
fn mistyped_variables_are_noticed() {
    assert_eq!(
        Scene::new("").env("WHATAP_LISENSE", "x").findings(),
        ["WHATAP_LISENSE: no option has this environment variable; did you mean `WHATAP_LICENSE`?"]
    );
}

proptest::proptest! {
    #[test]
    fn no_file_is_too_strange(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let scene = Scene::new("");
        fs::write(scene.files().config, &bytes).unwrap();
        for f in scene.resolve().findings {
            proptest::prop_assert!(!f.to_string().contains('\n'));
        }
    }
}
