//! `whatap-setting-config` as its users meet it. Tests named `lNN_` are the numbered checks of the suite.

mod scene;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use scene::{LICENCE, Scene};

fn set(scene: &Scene, words: &[&str]) -> scene::Did {
    scene.run(&[&["whatap-setting-config"], words].concat())
}

#[test]
fn the_llm_channel_has_keys_of_its_own() {
    let scene = Scene::new().conf("# mine\nlicense=x\napm_enabled=true\n");
    let words = [
        "whatap-llm-setting-config",
        "--host=127.0.0.1/127.0.0.2",
        "--license",
        LICENCE,
    ];
    let seen = scene.run(&words).status(0);
    assert!(seen.stderr.contains("not traced yet"), "{}", seen.stderr);
    let expected = format!(
        "# mine\nlicense=x\napm_enabled=true\nllm.whatap.server.host=127.0.0.1,127.0.0.2\nllm_license={}\nllm_enabled=true\n",
        LICENCE
    );
    assert_eq!(scene.conf_text(), expected);
    set(&scene, &["--llm", "--host", "127.0.0.1,127.0.0.2"]).status(0);
    assert_eq!(scene.conf_text(), expected);
    let shown = set(&scene, &["--print"]).status(0).stdout;
    assert!(!shown.contains(LICENCE), "{shown}");
    scene
        .run(&["whatap-llm-setting-config", "--host", "127.0.0.1:6600"])
        .status(2)
        .complains(&["whatap-llm-setting-config: ", "without a port"]);
}

#[test]
fn l06_all_settings_are_stored_as_they_are_given() {
    let scene = Scene::new();
    let words = [
        "--host",
        "a.invalid,127.0.0.1",
        "--license",
        LICENCE,
        "--app_name",
        "my app+1",
        "--app_process_name=g=1",
    ];
    set(&scene, &words)
        .status(0)
        .stdout(&format!("wrote {}/whatap.conf\n", scene.home().display()));
    let text = scene.conf_text();
    for line in [
        "whatap.server.host=a.invalid,127.0.0.1",
        &format!("license={LICENCE}"),
        "app_name=my app+1",
        "app_process_name=g=1",
        "apm_enabled=true",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
    let mode = fs::metadata(scene.home().join("whatap.conf"))
        .unwrap()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn l29_one_setting_leaves_every_other_byte() {
    let scene = Scene::new()
        .conf("# mine\r\n\r\nlicense = old # x\r\napp_name=a\r\nodd=1\r\napm_enabled=false");
    set(&scene, &["--quiet", "--app-name", "b"])
        .status(0)
        .stdout("")
        .stderr("");
    assert_eq!(
        scene.conf_text(),
        "# mine\r\n\r\nlicense = old # x\r\napp_name=b\r\nodd=1\r\napm_enabled=false"
    );
    set(
        &scene,
        &["-q", "--set", "profile_basetime=7", "--unset", "odd"],
    )
    .status(0);
    assert_eq!(
        scene.conf_text(),
        "# mine\r\n\r\nlicense = old # x\r\napp_name=b\r\napm_enabled=false\r\nprofile_basetime=7\r\n"
    );
}

#[test]
fn nothing_new_is_nothing_written() {
    let scene = Scene::new().conf("app_name=a\n");
    let stamp = |scene: &Scene| {
        fs::metadata(scene.home().join("whatap.conf"))
            .map(|m| (m.ino(), m.mtime_nsec()))
            .unwrap()
    };
    let before = stamp(&scene);
    let seen = set(&scene, &["--app_name", "a"]).status(0);
    assert!(seen.stdout.starts_with("unchanged"));
    assert_eq!(stamp(&scene), before);
}

#[test]
fn a_link_stays_a_link_and_a_mode_a_mode() {
    let scene = Scene::new().file("real.conf", 0o640, "app_name=a\n");
    std::os::unix::fs::symlink(
        scene.root().join("real.conf"),
        scene.home().join("whatap.conf"),
    )
    .unwrap();
    set(&scene, &["--app_name", "b"]).status(0);
    assert!(
        fs::symlink_metadata(scene.home().join("whatap.conf"))
            .unwrap()
            .is_symlink()
    );
    let meta = fs::metadata(scene.root().join("real.conf")).unwrap();
    assert_eq!(
        (meta.mode() & 0o777, scene.conf_text().as_str()),
        (0o640, "app_name=b\n")
    );
}

#[test]
fn a_link_that_leads_nowhere_says_where_the_file_is_to_be() {
    for target in ["../conf/real.conf", "conf/missing/real.conf"] {
        let scene = Scene::new().file("conf/other", 0o600, "");
        let link = scene.home().join("whatap.conf");
        std::os::unix::fs::symlink(target, &link).unwrap();
        let there = target.starts_with("..");
        set(&scene, &["--app_name", "b"]).status(if there { 0 } else { 73 });
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let real = scene.root().join("conf/real.conf");
        assert_eq!(real.exists(), there);
        assert_eq!(link.exists(), there);
    }
    let scene = Scene::new();
    let link = scene.home().join("whatap.conf");
    std::os::unix::fs::symlink("whatap.conf", &link).unwrap();
    set(&scene, &["--app_name", "b"])
        .status(73)
        .complains(&["too many links"]);
}

#[test]
fn the_license_counts_that_was_set_last_under_whatever_name() {
    let scene = Scene::new().conf("license=x1-x1-x1\naccesskey=x2-x2-x2\n");
    set(&scene, &["--license", LICENCE]).status(0);
    assert_eq!(
        scene.conf_text(),
        format!("license=x1-x1-x1\naccesskey={LICENCE}\n")
    );
    set(&scene, &["--unset", "license"]).status(0);
    assert_eq!(scene.conf_text(), "");
    let scene = Scene::new().file(
        "pyproject.toml",
        0o644,
        "[tool.whatap]\nname = \"a\"\nobject_name = \"b\"\n",
    );
    let words = ["--pyproject", "--unset", "object_name"];
    set(&scene, &words).status(0);
    let text = fs::read_to_string(scene.root().join("pyproject.toml")).unwrap();
    assert_eq!(text, "[tool.whatap]\n");
}

#[test]
fn a_file_of_another_encoding_can_be_edited_where_its_comments_are_all_that_is_odd() {
    let scene = Scene::new();
    let file = scene.home().join("whatap.conf");
    fs::write(&file, b"# \xb0\xa1\xb0\xd4\napp_name=x\n").unwrap();
    set(&scene, &["--check"]).status(0).stderr("");
    set(&scene, &["--app_name", "y"]).status(0);
    assert_eq!(
        fs::read(&file).unwrap(),
        b"# \xb0\xa1\xb0\xd4\napp_name=y\n"
    );
    fs::write(&file, b"app_name=\xb0\xa1\n").unwrap();
    set(&scene, &["--app_name", "y"]).status(65).mentions(&[
        "whatap.conf:1: line is not UTF-8",
        "hint: ",
        "iconv -f cp949",
    ]);
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_a_reader_that_has_gone_is_none() {
    let scene = Scene::new().conf("app_name=x\n");
    for (program, words) in [
        ("whatap-setting-config", "--print"),
        ("whatap-start-agent", "--dry-run true"),
        ("whatap-doctor", "--version"),
    ] {
        let path = scene::program(program);
        let sh = |line: &str| {
            let line = line.replace("PROGRAM", &format!("{} {words}", path.display()));
            scene.run(&["bash", "-c", &line])
        };
        let full = sh("PROGRAM >/dev/full").status(74);
        full.complains(&["cannot write to standard output: no space left on device"]);
        sh("PROGRAM >&-").status(74).complains(&["standard output"]);
        let gone = sh("PROGRAM | true; exit ${PIPESTATUS[0]}");
        gone.status(0).stderr("");
    }
    set(&scene, &["--app_name", "y"]).status(0);
}

#[test]
fn a_value_does_nothing_to_the_terminal_that_shows_it() {
    let scene = Scene::new().conf("app_name=\u{1b}[31mx\u{9b}\n");
    set(&scene, &["--print"])
        .status(0)
        .stdout("app_name=\u{1b}[31mx\u{9b}\n");
    let terminal = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let program = scene::program("whatap-setting-config");
    let seen = scene
        .run(&[
            "python3",
            "-c",
            terminal,
            program.to_str().unwrap(),
            "--print",
        ])
        .status(0);
    assert_eq!(seen.stdout, "app_name=\u{fffd}[31mx\u{fffd}\r\n");
    let scene = scene.env("TERM", "dumb");
    let seen = scene.run(&["whatap-doctor"]).stdout;
    assert!(seen.contains("app_name=\u{fffd}[31mx\u{fffd}"), "{seen}");
}

#[test]
fn mistakes_write_nothing() {
    let scene = Scene::new();
    for words in [
        &["--host", "--license", "x"][..],
        &["--host", "a:1,b:2"],
        &["--license", "abc=def"],
        &["--app_name"],
        &["--app_name", &"x".repeat(51)],
        &["--set", "lisence=x"],
        &["--set", "profile_basetime=soon"],
        &["--set", "novalue"],
        &["--set", "license=abc"],
        &["--set", "whatap.server.host=a b;c"],
        &["--set", "whatap.server.host=a:6600"],
        &["--set", &format!("object_name={}", "x".repeat(201))],
        &["--host", &"a".repeat(254)],
        &["--host", "http://1.2.3.4:6600/x"],
        &["--license", ""],
        &["--set", "app_name=a", "--app_name", "b"],
        &["--set", "app_name=a", "--unset", "app_name"],
        &["--set", "license=", "--set", "accesskey="],
        &["--unset", ""],
        &["--app_name", " lead trail "],
        &[],
    ] {
        set(&scene, words)
            .status(2)
            .stdout("")
            .complains(&["whatap-setting-config: "]);
    }
    assert_eq!(fs::read_dir(scene.home()).unwrap().count(), 0);
    set(&scene, &["--set", "lisence=x"]).complains(&["did you mean `license`?"]);
    set(&scene, &["--host", "http://1.2.3.4:6600/x"]).complains(&["not as a URL"]);
    set(&scene, &["--license", ""]).complains(&["the license is empty"]);
    set(&scene, &["--set", "app_name=a", "--unset", "app_name"])
        .complains(&["app_name is named twice"]);
}

#[test]
fn what_is_stored_and_probably_not_meant_is_said() {
    let scene = Scene::new().conf("app_name=x\nodd=1\n");
    set(&scene, &["--unset", "lisence"])
        .status(0)
        .complains(&["--unset lisence: not there; did you mean `license`?"]);
    set(&scene, &["--unset", "odd", "--unset", "license"])
        .status(0)
        .stderr("");
    set(&scene, &["--app_name", "x #y"])
        .status(0)
        .complains(&["app_name: ` #` starts no comment here"]);
    assert_eq!(scene.conf_text(), "app_name=x #y\n");
}

#[test]
fn the_key_need_not_stand_on_the_command_line() {
    let scene = Scene::new().file("key", 0o600, &format!("{LICENCE}\n"));
    let key = scene.root().join("key");
    set(&scene, &["--license-file", key.to_str().unwrap()]).status(0);
    assert!(scene.conf_text().contains(&format!("license={LICENCE}\n")));
    let seen = set(&scene, &["--print"]).status(0);
    assert_eq!(seen.stdout, "apm_enabled=true\nlicense=x21o…\n");
}

#[test]
fn no_secret_is_printed_however_its_key_is_spelled() {
    let scene = Scene::new().conf(&format!(
        "licence={LICENCE}\nlisence={LICENCE}\nx={LICENCE}\nhttp_password=hunter2\nWhatap_Token=hunter2\napp_name=shop\n"
    ));
    let seen = set(&scene, &["--print"]).status(0);
    assert_eq!(
        seen.stdout,
        "licence=x21o…\nlisence=x21o…\nx=x21o…\nhttp_password=…\nWhatap_Token=…\napp_name=shop\n"
    );
    for words in [
        &["whatap-setting-config", "--set", LICENCE][..],
        &["whatap-setting-config", LICENCE],
        &["whatap-setting-config", "--unset", "a", LICENCE],
        &["whatap-start-agent", "--set", LICENCE, "true"],
        &[
            "whatap-start-agent",
            &format!("--license={LICENCE}"),
            "true",
        ],
        &["whatap-doctor", &format!("--license={LICENCE}")],
        &["whatap-stop-agent", LICENCE],
    ] {
        let seen = scene.run(words);
        assert!(
            !seen.stderr.is_empty() && !seen.stderr.contains("xa1g7"),
            "{}",
            seen.stderr
        );
    }
}

#[test]
fn a_file_that_cannot_be_understood_is_left_alone() {
    let scene = Scene::new().conf("app_name=a\nwhat is this\n");
    set(&scene, &["--app_name", "b"])
        .status(65)
        .complains(&["whatap.conf:2"]);
    assert_eq!(scene.conf_text(), "app_name=a\nwhat is this\n");
    set(&scene, &["--check"])
        .status(65)
        .complains(&["whatap.conf:2"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let scene = Scene::new().env("WHATAP_HOME", "/proc/nothing/here");
    set(&scene, &["--app_name", "b"])
        .status(73)
        .mentions(&["/proc/nothing/here"]);
    let scene = Scene::new().file("home-file", 0o644, "");
    let scene = {
        let path = scene.root().join("home-file");
        scene.env("WHATAP_HOME", path)
    };
    set(&scene, &["--app_name", "b"])
        .status(73)
        .mentions(&["home-file"]);
}

#[test]
fn a_missing_home_is_made_in_a_place_that_is_there() {
    let scene = Scene::new();
    let new = scene.root().join("new");
    let scene = scene.env("WHATAP_HOME", new.clone());
    set(&scene, &["--app_name", "b"]).status(0);
    assert!(new.join("whatap.conf").is_file());
    let scene = scene.env("WHATAP_HOME", new.join("a/b"));
    set(&scene, &["--app_name", "b"]).status(73);
}

#[test]
fn many_writers_lose_nothing() {
    let scene = Scene::new();
    let children: Vec<_> = (0..10)
        .map(|i| {
            let pair = format!("agent_linger_sec={i}");
            let words = [
                "whatap-setting-config",
                "-q",
                "--set",
                &pair,
                "--license",
                LICENCE,
            ];
            scene.command(&words).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let text = scene.conf_text();
    assert_eq!(text.matches("license=").count(), 1, "{text}");
    assert_eq!(text.matches("agent_linger_sec=").count(), 1, "{text}");
    assert_eq!(
        fs::read_dir(scene.home()).unwrap().count(),
        1,
        "no temporary file stays"
    );
}

#[test]
fn values_are_stored_as_they_are_given() {
    for (option, key, value) in [
        ("--app_name", "app_name", "my app"),
        ("--app_name", "app_name", "host"),
        ("--app_name", "app_name", "a+b,c=d"),
        ("--app_name", "app_name", "가게-1"),
        ("--app-process-name", "app_process_name", "--license"),
        ("--host", "whatap.server.host", "name-1.invalid"),
    ] {
        let scene = Scene::new();
        let joined = format!("{option}={value}");
        set(&scene, &[&joined]).status(0);
        assert!(
            scene
                .conf_text()
                .lines()
                .any(|l| l == format!("{key}={value}")),
            "{joined}: {}",
            scene.conf_text()
        );
    }
}

#[test]
fn servers_are_stored_with_their_port() {
    for (given, hosts, port) in [
        ("a.invalid,b.invalid", "a.invalid,b.invalid", None),
        ("a.invalid/b.invalid", "a.invalid,b.invalid", None),
        ("127.0.0.1:6601", "127.0.0.1", Some("6601")),
        ("[::1]", "::1", None),
        ("[::1]:6602,127.0.0.1", "::1,127.0.0.1", Some("6602")),
    ] {
        let scene = Scene::new();
        set(&scene, &["--quiet", "--host", given, "--license", LICENCE]).status(0);
        let text = scene.conf_text();
        let value = |key: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(&format!("{key}=")).map(str::to_owned))
        };
        assert_eq!(
            value("whatap.server.host").as_deref(),
            Some(hosts),
            "{given}"
        );
        assert_eq!(value("whatap.server.port").as_deref(), port, "{given}");
        assert_eq!(value("license").as_deref(), Some(LICENCE), "{given}");
    }
}

#[test]
fn a_name_that_does_not_resolve_is_said_and_stored() {
    let scene = Scene::new();
    let seen = set(&scene, &["--host", "nowhere.invalid"]).status(0);
    seen.complains(&["nowhere.invalid does not resolve"]);
    assert!(scene.conf_text().contains("nowhere.invalid"));
}

#[test]
fn the_key_comes_from_standard_input_too() {
    let scene = Scene::new();
    let line = format!("echo {LICENCE} | \"$0\" --license-stdin");
    let program = scene::program("whatap-setting-config");
    scene
        .run(&["sh", "-c", &line, program.to_str().unwrap()])
        .status(0);
    assert!(scene.conf_text().contains(&format!("license={LICENCE}\n")));
    set(&scene, &["--license", LICENCE, "--license-stdin"])
        .status(2)
        .complains(&["cannot be used with"]);
    let seen = set(&scene, &["--license-file", "/no/such/file"]).status(2);
    seen.complains(&["/no/such/file", "no such file"]);
}

#[test]
fn a_byte_order_mark_and_line_ends_stay() {
    let scene = Scene::new().conf("\u{feff}# ours\r\napp_name=a\r\n");
    set(&scene, &["--app_name", "b", "--set", "trace_cpu=on"]).status(0);
    assert_eq!(
        scene.conf_text(),
        "\u{feff}# ours\r\napp_name=b\r\ntrace_cpu=on\r\n"
    );
    set(&scene, &["--unset", "trace_cpu", "--unset", "app_name"]).status(0);
    assert_eq!(scene.conf_text(), "\u{feff}# ours\r\n");
}

#[test]
fn nothing_but_a_plain_file_of_a_plain_size_is_read() {
    let scene = Scene::new();
    let conf = scene.home().join("whatap.conf");
    nix::unistd::mkfifo(&conf, nix::sys::stat::Mode::S_IRWXU).unwrap();
    set(&scene, &["--app_name", "b"])
        .status(73)
        .complains(&["not a regular file"]);
    set(&scene, &["--print"])
        .status(65)
        .complains(&["not a regular file"]);
    fs::remove_file(&conf).unwrap();
    fs::create_dir(&conf).unwrap();
    set(&scene, &["--app_name", "b"])
        .status(73)
        .mentions(&["whatap.conf"]);
    fs::remove_dir(&conf).unwrap();
    fs::File::create(&conf).unwrap().set_len(8 << 20).unwrap();
    set(&scene, &["--app_name", "b"])
        .status(73)
        .complains(&["larger than 1 MiB"]);
}

#[test]
fn a_link_in_a_home_that_others_can_write_to_is_not_followed() {
    let scene = Scene::new().file("victim", 0o600, "");
    let link = scene.home().join("whatap.conf");
    std::os::unix::fs::symlink(scene.root().join("victim"), link).unwrap();
    fs::set_permissions(scene.home(), fs::Permissions::from_mode(0o777)).unwrap();
    set(&scene, &["--app_name", "b"])
        .status(73)
        .complains(&["it is a link", "others can write"]);
    assert_eq!(fs::read(scene.root().join("victim")).unwrap(), b"");
}

#[test]
fn somebody_who_holds_the_lock_is_waited_for_and_then_named() {
    use nix::fcntl::{Flock, FlockArg};
    let scene = Scene::new().conf("app_name=a\n");
    let home = fs::File::open(scene.home()).unwrap();
    let lock = Flock::lock(home, FlockArg::LockExclusive).unwrap();
    set(&scene, &["--app_name", "b"])
        .status(73)
        .complains(&["another process is writing there"]);
    drop(lock);
    set(&scene, &["--app_name", "b"]).status(0);
}

#[test]
fn a_disk_that_is_full_leaves_the_old_file() {
    // No byte more may be written: as on a full disk, without one.
    let conf = "app_name=a\n";
    let scene = Scene::new().conf(conf);
    let program = scene::program("whatap-setting-config");
    let line = "ulimit -f 0; exec \"$0\" --app_name b";
    scene
        .run(&["sh", "-c", line, program.to_str().unwrap()])
        .status(73)
        .complains(&["cannot write", "whatap.conf"]);
    assert_eq!(scene.conf_text(), conf);
    assert_eq!(fs::read_dir(scene.home()).unwrap().count(), 1);
}

#[test]
fn files_are_private_whatever_the_umask_and_their_owner_stays() {
    let scene = Scene::new();
    let program = scene::program("whatap-setting-config");
    let line = "umask 0; exec \"$0\" --app_name b";
    let under = |scene: &Scene| scene.run(&["sh", "-c", line, program.to_str().unwrap()]);
    under(&scene).status(0);
    let meta = |scene: &Scene| fs::metadata(scene.home().join("whatap.conf")).unwrap();
    assert_eq!(meta(&scene).mode() & 0o777, 0o600);
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // Root writes for others: a new file is the home's owner's, an old one stays its own.
    let scene = Scene::new();
    std::os::unix::fs::chown(scene.home(), Some(61_001), Some(61_001)).unwrap();
    set(&scene, &["--app_name", "b"]).status(0);
    assert_eq!((meta(&scene).uid(), meta(&scene).gid()), (61_001, 61_001));
    let conf = scene.home().join("whatap.conf");
    std::os::unix::fs::chown(conf, Some(61_002), Some(61_001)).unwrap();
    set(&scene, &["--app_name", "c"]).status(0);
    assert_eq!((meta(&scene).uid(), meta(&scene).gid()), (61_002, 61_001));
}

#[test]
fn a_home_of_somebody_else_is_named_with_its_owner() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    use std::os::unix::process::CommandExt as _;
    let scene = Scene::new();
    fs::set_permissions(scene.root(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(scene.home(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = scene.command(&["whatap-setting-config", "--app_name", "b"]);
    let output = command.uid(61_001).gid(61_001).output().unwrap();
    scene::Did::of("as another user".into(), output)
        .status(73)
        .mentions(&["permission denied", "uid 0", "this is uid 61001"])
        .mentions(&["hint: run it as its owner, sudo -u root …"]);
}

/// The hint names what holds the writer back, and following it is enough.
#[test]
fn the_hint_is_the_narrowest_cure() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    use std::os::unix::process::CommandExt as _;
    const USER: u32 = 61_001;
    let scene = Scene::new();
    let as_user = |home: &std::path::Path, words: &[&str]| {
        let mut command = scene.command(words);
        command.env("WHATAP_HOME", home).uid(USER).gid(USER);
        scene::Did::of("as another user".into(), command.output().unwrap())
    };
    let change = ["whatap-setting-config", "--app_name", "b"];
    let (root, home) = (scene.root(), scene.home());
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    // Of root's home, closed or open, nothing is given away, and neither is anything around it.
    let conf = home.join("whatap.conf");
    fs::write(&conf, "app_name=a\n").unwrap();
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).unwrap();
    for mode in [0o700, 0o750, 0o755] {
        fs::set_permissions(&home, fs::Permissions::from_mode(mode)).unwrap();
        let seen = as_user(&home, &change).status(73);
        assert!(!seen.stderr.contains("install"), "{}", seen.stderr);
        seen.mentions(&["sudo -u root"]);
    }
    // His own, closed to himself.
    let own = root.join("own");
    fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(USER), Some(USER)).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o500)).unwrap();
    let seen = as_user(&own, &change).status(73);
    let (_, hint) = seen.stderr.split_once("hint: ").unwrap();
    as_user(&own, &["sh", "-c", hint]).status(0);
    as_user(&own, &change).status(0);
    // None yet: that directory alone is made, and not what is above it.
    let new = root.join("new");
    let seen = as_user(&new, &change).status(73);
    let (_, hint) = seen.stderr.split_once("hint: sudo ").unwrap();
    scene.run(&["sh", "-c", hint]).status(0);
    as_user(&new, &change).status(0);
    assert_eq!(fs::metadata(&root).unwrap().uid(), 0);
}

#[test]
fn a_project_file_is_changed_in_its_table_and_never_gets_the_key() {
    let before =
        "# ours\n[project]\nname = \"x\"\n\n[tool.whatap] # tracing\napp_name = 'old' # shown\n";
    let scene = Scene::new().file("pyproject.toml", 0o644, before);
    let file = scene.root().join("pyproject.toml");
    let words = ["--pyproject", "--app_name", "new", "--set", "trace_cpu=on"];
    set(&scene, &words)
        .status(0)
        .stdout(&format!("wrote {}\n", file.display()))
        .stderr("");
    let after = before.replace("'old'", "\"new\"") + "trace_cpu = true\n";
    assert_eq!(fs::read_to_string(&file).unwrap(), after);
    let meta = fs::metadata(&file).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o644);
    set(&scene, &words).status(0).mentions(&[]);
    assert_eq!(
        fs::metadata(&file).unwrap().ino(),
        meta.ino(),
        "not written"
    );
    set(&scene, &["--pyproject", "--print"])
        .status(0)
        .stdout("app_name=new\ntrace_cpu=true\n");
    set(&scene, &["--pyproject", "--unset", "trace_cpu"]).status(0);
    set(&scene, &["--pyproject", "--license", LICENCE]).status(2);
    set(
        &scene,
        &["--pyproject", "--set", &format!("license={LICENCE}")],
    )
    .status(2)
    .complains(&["pyproject.toml is committed"]);
    assert!(!fs::read_to_string(&file).unwrap().contains("license"));
    // What is written there counts.
    let seen = scene.start(&["--dry-run", "true"]).status(0).stdout;
    assert!(seen.contains("app_name=new"), "{seen}");
}

#[test]
fn a_project_file_that_is_not_there_or_not_toml_is_left_alone() {
    let scene = Scene::new();
    set(&scene, &["--pyproject", "--app_name", "x"])
        .status(2)
        .complains(&["no pyproject.toml"]);
    let scene = Scene::new().file("pyproject.toml", 0o644, "[tool.whatap]\napp_name = \n");
    set(&scene, &["--pyproject", "--app_name", "x"])
        .status(65)
        .complains(&["pyproject.toml:2", "nothing was changed"]);
}
