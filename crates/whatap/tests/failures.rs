//! What is wrong with the monitoring never keeps the application from starting: situation by situation, and what is said about it.

mod scene;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use scene::{Scene, program};

#[test]
fn a_home_that_nobody_named_is_where_the_file_lies() {
    let scene = Scene::new()
        .conf("app_name=here\n")
        .without("WHATAP_HOME")
        .within("home");
    let seen = scene
        .start(&["sh", "-c", "echo \"$WHATAP_LAUNCH\"; exit 7"])
        .status(7)
        .stderr("");
    assert!(
        seen.stdout
            .contains(&format!("_home={};", scene.home().display())),
        "{}",
        seen.stdout
    );
    assert!(seen.stdout.contains(";app_name=here"), "{}", seen.stdout);
}

#[test]
fn a_home_that_is_not_there_costs_one_line_and_no_start() {
    let scene = Scene::new().env("WHATAP_HOME", "/nonexistent/home");
    let seen = scene
        .start(&["sh", "-c", "echo \"[$PYTHONPATH$WHATAP_LAUNCH]\"; exit 7"])
        .status(7)
        .stdout("[]\n");
    seen.complains(&["/nonexistent/home", "does not exist"]);
}

#[test]
fn l16_a_file_without_apm_enabled_is_traced() {
    let conf = format!(
        "license={}\nwhatap.server.host=127.0.0.1\napp_name=x\napp_process_name=y\nnet_udp_port=6600\n",
        scene::LICENCE
    );
    let scene = Scene::new().conf(&conf);
    let seen = scene.start(&["--dry-run", "true"]).status(0).stderr("");
    assert!(seen.stdout.contains("traced=true"), "{}", seen.stdout);
}

#[test]
fn l17_a_placeholder_costs_one_line_and_the_doctor_fails_it() {
    let conf =
        "license=xxxxxxxxxxxxxx-xxxxxxxxxxxxxx-xxxxxxxxxxxxxx\nwhatap.server.host=127.0.0.1\n";
    let scene = Scene::new().conf(conf);
    let seen = scene.start(&["echo", "ran"]).status(0).stdout("ran\n");
    seen.complains(&["whatap.conf:1: license:", "placeholder"]);
    let doctor = scene.run(&["whatap-doctor"]).status(2);
    assert!(
        doctor.stdout.contains("whatap.conf:1: license:"),
        "{}",
        doctor.stdout
    );
}

#[test]
fn broken_lines_are_named_with_what_is_used_instead() {
    let scene = Scene::new().conf("profile_basetime=soon\n");
    let seen = scene.start(&["echo", "ran"]).stdout("ran\n");
    seen.complains(&["whatap.conf:1: profile_basetime: `soon`", "using `500`"]);
    let scene = scene.env("WHATAP_IGNORE_WHATAP_STDOUT", "true");
    scene.start(&["echo", "ran"]).stdout("ran\n").stderr("");
}

#[test]
fn an_environment_that_is_full_already_is_started_without_us() {
    let scene = Scene::new();
    // One variable may have 128 KiB; ours would make this one too long.
    let mut command = scene.command(&["whatap-start-agent", "sh", "-c", "exit 7"]);
    command.env(
        "PYTHONPATH",
        "/".repeat(128 * 1024 - "PYTHONPATH=".len() - 1),
    );
    assert_eq!(command.status().unwrap().code(), Some(7));
}

#[test]
fn a_home_that_others_can_write_to_costs_one_line() {
    let scene = Scene::new();
    fs::set_permissions(
        scene.home(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let seen = scene.start(&["echo", "ran"]).status(0).stdout("ran\n");
    seen.complains(&["others can write to", "home"]);
}

#[test]
fn a_copy_with_more_rights_than_its_caller_is_a_plain_exec() {
    // Needs root, who can make such a copy and be its lesser caller.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let scene = Scene::new();
    let copy = scene.root().join("copy");
    fs::copy(program("whatap-start-agent"), &copy).unwrap();
    std::os::unix::fs::chown(&copy, Some(12_003), None).unwrap();
    fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let look = "echo \"[$PYTHONPATH$WHATAP_LAUNCH]\"; exit 7";
    let seen = scene
        .run(&[copy.to_str().unwrap(), "sh", "-c", look])
        .status(7);
    seen.stdout("[]\n").stderr("");
}

#[test]
fn a_user_without_any_directory_is_traced_too() {
    // Needs root, who can be somebody else: containers run under uids that nobody knows.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    use std::os::unix::process::CommandExt as _;
    let scene = Scene::new()
        .without("WHATAP_HOME")
        .env("HOME", "/nonexistent");
    let runtime = scene.root().join("runtime");
    fs::create_dir(&runtime).unwrap();
    for dir in [scene.root(), runtime.clone()] {
        std::os::unix::fs::chown(dir, Some(12_004), Some(12_004)).unwrap();
    }
    let scene = scene.env("XDG_RUNTIME_DIR", runtime);
    let ours = |words: &[&str]| {
        let output = scene
            .command(words)
            .uid(12_004)
            .gid(12_004)
            .output()
            .unwrap();
        scene::Did::of(words.join(" "), output)
    };
    let look = "test -n \"$WHATAP_LAUNCH\" && exit 7";
    ours(&["whatap-start-agent", "sh", "-c", look])
        .status(7)
        .stderr("");
    ours(&["whatap-stop-agent"]).status(0);
}

/// Runs behind the launcher with a terminal as stderr; what appeared there.
fn on_a_terminal(scene: &Scene, words: &[&str]) -> String {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut command = scene.command(&[&["whatap-start-agent"], words].concat());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(terminal.slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    assert!(child.wait().unwrap().success());
    // Reading from a terminal whose other side has gone is an error, after what was written.
    let mut seen = Vec::new();
    let mut master = fs::File::from(terminal.master);
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = master.read(&mut piece) {
        seen.extend_from_slice(&piece[..read]);
    }
    String::from_utf8(seen).unwrap()
}

#[test]
fn without_a_server_the_first_line_on_a_terminal_opens_the_dashboard() {
    let scene = Scene::new();
    let seen = on_a_terminal(&scene, &["true"]);
    let link = seen
        .trim()
        .strip_prefix("whatap: dashboard http://")
        .unwrap_or_else(|| panic!("{seen}"));
    let (address, token) = link.split_once("/?token=").unwrap();
    assert_eq!(token.len(), 64, "{token}");
    // Nothing had to be waited for: the port was bound before the line was printed.
    std::net::TcpStream::connect(address).unwrap();
    scene.run(&["whatap-stop-agent"]).status(0);
}

#[test]
fn no_local_server_where_nobody_looks_or_wants_it() {
    let scene = Scene::new();
    scene.start(&["true"]).status(0).stderr("");
    assert!(!scene.root().join("server").exists());
    let scene = scene.env("WHATAP_LOCAL_SERVER", "false");
    assert_eq!(on_a_terminal(&scene, &["true"]), "");
}

#[test]
fn the_second_launch_on_a_terminal_gets_a_link_that_logs_in() {
    let scene = Scene::new().conf("agent_linger_sec=60\n");
    let link = |seen: String| {
        let link = seen.trim().strip_prefix("whatap: dashboard http://");
        let link = link.unwrap_or_else(|| panic!("{seen}")).to_owned();
        let (address, token) = link.split_once("/?token=").expect("a link with a token");
        (address.to_owned(), token.to_owned())
    };
    let (address, first) = link(on_a_terminal(&scene, &["true"]));
    scene.wait_for("server", || {
        scene.root().join("server/server.json").exists()
    });
    let (same, second) = link(on_a_terminal(&scene, &["true"]));
    assert_eq!(address, same);
    assert_ne!(first, second, "each link opens the dashboard once");
    scene.run(&["whatap-stop-agent"]).status(0);
}

#[test]
fn two_first_launches_on_terminals_start_one_server() {
    let scene = Scene::new().conf("agent_linger_sec=60\n");
    let seen: Vec<String> = std::thread::scope(|scope| {
        let launches: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| on_a_terminal(&scene, &["true"])))
            .collect();
        launches.into_iter().map(|l| l.join().unwrap()).collect()
    });
    let addresses: std::collections::BTreeSet<_> = seen
        .iter()
        .filter(|line| !line.is_empty())
        .map(|line| line.split("/?token=").next().unwrap().to_owned())
        .collect();
    assert_eq!(addresses.len(), 1, "{seen:?}");
    scene.run(&["whatap-stop-agent"]).status(0);
}

#[test]
fn a_home_that_is_a_file_costs_one_line() {
    let scene = Scene::new().file("occupied", 0o644, "");
    let home = scene.root().join("occupied");
    let scene = scene.env("WHATAP_HOME", home);
    let seen = scene.start(&["sh", "-c", "exit 7"]).status(7).stdout("");
    seen.complains(&["occupied", "is not a directory"]);
}

#[test]
fn a_home_without_a_file_gets_none() {
    let scene = Scene::new()
        .env("WHATAP_LICENSE", scene::LICENCE)
        .env("WHATAP_SERVER_HOST", "127.0.0.1");
    let seen = scene.start(&["sh", "-c", "echo \"$WHATAP_LAUNCH\""]);
    assert!(
        seen.stdout.contains("whatap.server.host=127.0.0.1"),
        "{}",
        seen.stdout
    );
    seen.status(0).stderr("");
    assert!(!scene.home().join("whatap.conf").exists());
}

#[test]
fn a_licence_in_the_environment_reaches_the_collector_and_no_other_environment() {
    let scene = Scene::new()
        .conf("agent_linger_sec=60\n")
        .env("WHATAP_LICENSE", scene::LICENCE)
        .env("WHATAP_SERVER_HOST", "127.0.0.1");
    scene.start(&["true"]).status(0);
    scene.wait_for("collector", || scene.processes("whatap_python").len() == 1);
    let ours = ["whatap_python", "whatap_watch"].map(|name| scene.processes(name));
    for pid in ours.concat() {
        for file in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(!text.contains(scene::LICENCE), "{file} of {pid}: {text}");
        }
    }
    let report = scene.run(&["whatap-doctor", "--json"]).stdout;
    assert!(!report.contains(scene::LICENCE));
}

#[test]
fn a_configuration_that_may_not_be_read_costs_one_line() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    use std::os::unix::process::CommandExt as _;
    let scene = Scene::new().conf("app_name=secret\n");
    for place in [scene.root(), scene.home()] {
        std::os::unix::fs::chown(place, Some(61_001), Some(61_001)).unwrap();
    }
    let conf = scene.home().join("whatap.conf");
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = scene.command(&["whatap-start-agent", "sh", "-c", "echo ran; exit 7"]);
    let output = command.uid(61_001).gid(61_001).output().unwrap();
    scene::Did::of("as another user".into(), output)
        .status(7)
        .stdout("ran\n")
        .complains(&["whatap.conf", "cannot be read: permission denied"]);
    let mut command = scene.command(&["whatap-stop-agent"]);
    drop(command.uid(61_001).gid(61_001).output());
}

#[test]
fn a_collector_that_is_not_installed_costs_one_line() {
    let scene = Scene::new();
    let alone = scene.root().join("alone");
    fs::create_dir(&alone).unwrap();
    fs::copy(
        program("whatap-start-agent"),
        alone.join("whatap-start-agent"),
    )
    .unwrap();
    let launcher = alone.join("whatap-start-agent");
    let scene = scene.env("PATH", "/usr/bin:/bin");
    let seen = scene.run(&[launcher.to_str().unwrap(), "sh", "-c", "echo ran; exit 7"]);
    seen.status(7)
        .stdout("ran\n")
        .complains(&["whatap_python is not installed", "not traced"]);
}

#[test]
fn a_collector_that_cannot_be_executed_costs_one_line_and_is_a_failure() {
    let scene = Scene::new().env("PATH", "/usr/bin:/bin");
    let beside = scene.root().join("bin");
    fs::create_dir(&beside).unwrap();
    for name in ["whatap-start-agent", "whatap-doctor"] {
        fs::copy(program(name), beside.join(name)).unwrap();
    }
    let collector = beside.join("whatap_python");
    for (bytes, mode, why) in [
        (&b"garbage"[..], 0o755, "not a program"),
        (b"#!/bin/sh\n", 0o644, "permission denied"),
    ] {
        fs::write(&collector, bytes).unwrap();
        fs::set_permissions(&collector, fs::Permissions::from_mode(mode)).unwrap();
        let path = |name: &str| beside.join(name).display().to_string();
        let launcher = path("whatap-start-agent");
        let seen = scene.run(&[&launcher, "sh", "-c", "echo ran $WHATAP_LAUNCH; exit 7"]);
        let about = format!("cannot be executed: {why}; not traced");
        seen.status(7).stdout("ran\n").complains(&[&about]);
        let seen = scene.run(&[&path("whatap-doctor")]).status(2);
        assert!(
            seen.stdout.contains("whatap_python cannot be"),
            "{}",
            seen.stdout
        );
    }
}

#[test]
fn however_much_is_wrong_it_is_one_line_with_the_gravest() {
    let scene = Scene::new().conf("license=bad\nwhatap.server.host=127.0.0.1\nlisence=x\n");
    fs::set_permissions(scene.home(), fs::Permissions::from_mode(0o777)).unwrap();
    scene
        .start(&["python3", "-E", "-c", "print(1)"])
        .status(0)
        .stdout("1\n")
        .complains(&[
            "it will not be traced (and ",
            " more: whatap-doctor lists them)",
        ]);
}

#[test]
fn a_program_of_a_stranger_with_our_name_disturbs_nobody() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    use std::os::unix::process::CommandExt as _;
    let scene = Scene::new();
    let stranger = scene.root().join("whatap_python");
    fs::copy("/bin/sleep", &stranger).unwrap();
    fs::set_permissions(scene.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut stranger = std::process::Command::new(stranger)
        .arg("60")
        .uid(61_002)
        .spawn()
        .unwrap();
    scene.start(&["true"]).status(0).stderr("");
    scene.run(&["whatap-stop-agent", "--force"]).status(0);
    assert!(stranger.try_wait().unwrap().is_none(), "it was ended");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_dry_run_says_what_and_why_and_does_nothing() {
    let scene = Scene::new().conf("app_name=shop\nodd=1\n");
    let home = scene.home();
    let seen = scene
        .start(&[
            "--dry-run",
            "--set",
            "trace_cpu=on",
            "sh",
            "-c",
            "exit 7",
            "",
        ])
        .status(0)
        .stderr("");
    for line in [
        "program=/",
        "command=sh -c 'exit 7' ''",
        &format!("home={} (from WHATAP_HOME)", home.display()),
        &format!("config={}/whatap.conf", home.display()),
        "finding=",
        "traced=true",
        "agent=would be started",
        "server=local, none runs and none would be started (local_server=auto)",
        "PYTHONPATH=/",
        "WHATAP_LAUNCH=1;",
    ] {
        assert!(
            seen.stdout.lines().any(|l| l.starts_with(line)),
            "{line}: {}",
            seen.stdout
        );
    }
    assert!(seen.stdout.contains("!trace_cpu=true"));
    scene.run(&["whatap-stop-agent"]).status(3);
    assert_eq!(fs::read_dir(home).unwrap().count(), 1);
    let scene = scene.env("WHATAP_ENABLED", "false");
    let seen = scene.start(&["--dry-run", "true"]).status(0).stdout;
    assert!(
        seen.contains("traced=false\nwhy=enabled=false (environment WHATAP_ENABLED)\n"),
        "{seen}"
    );
    let scene = scene.env("WHATAP_HOME", "/nonexistent");
    let scene = scene.without("WHATAP_ENABLED");
    let seen = scene.start(&["--dry-run", "true"]).status(0).stdout;
    assert!(
        seen.contains("why=home /nonexistent does not exist"),
        "{seen}"
    );
}

#[test]
fn the_banner_is_for_those_who_ask_for_it() {
    let scene = Scene::new();
    let home = scene.home().display().to_string();
    for (flags, variable) in [(&["--banner"][..], "0"), (&[], "1"), (&[], "yes")] {
        let mut words = vec!["whatap-start-agent"];
        words.extend(flags);
        words.extend(["echo", "x"]);
        let mut command = scene.command(&words);
        let output = command.env("WHATAP_BANNER", variable).output().unwrap();
        let seen = scene::Did::of(words.join(" "), output).stdout("x\n");
        for line in [
            concat!("whatap: version ", env!("CARGO_PKG_VERSION")),
            &format!("WHATAP_HOME: {home}"),
            &format!("Config: {home}/whatap.conf"),
            &format!("Logs: {home}/logs"),
        ] {
            assert!(
                seen.stderr.lines().any(|l| l == line),
                "{line}: {}",
                seen.stderr
            );
        }
    }
}

#[test]
fn a_home_may_have_any_name_that_is_text() {
    for name in [
        "with blank",
        "quo'te\"s",
        "semi;colon=%41",
        "집",
        "new\nline",
        "$HOME `x`",
    ] {
        let scene = Scene::new().conf("agent_linger_sec=60\n");
        let home = scene.root().join(name);
        fs::rename(scene.home(), &home).unwrap();
        let scene = scene.env("WHATAP_HOME", home.clone());
        let look = "test -n \"$WHATAP_LAUNCH\" && echo traced";
        let seen = scene.start(&["sh", "-c", look]).status(0);
        seen.stdout("traced\n").stderr("");
        scene.wait_for("log", || home.join("logs").is_dir());
        scene.run(&["whatap-stop-agent"]).status(0);
    }
}

#[test]
fn a_home_whose_name_is_no_text_costs_one_line() {
    use std::os::unix::ffi::OsStringExt as _;
    let scene = Scene::new();
    let mut name = scene.root().into_os_string().into_vec();
    name.extend(b"/\xff");
    let home = std::ffi::OsString::from_vec(name);
    fs::create_dir(&home).unwrap();
    let scene = scene.env("WHATAP_HOME", home);
    let seen = scene.start(&["echo", "ran"]).status(0).stdout("ran\n");
    seen.complains(&["its name is not UTF-8", "not traced"]);
}

#[test]
fn logs_that_a_run_as_root_left_behind_keep_nobody_from_tracing() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    use std::os::unix::process::CommandExt as _;
    let scene = Scene::new();
    scene.start(&["true"]).status(0).stderr("");
    scene.wait_for("log", || scene.home().join("logs").is_dir());
    scene.run(&["whatap-stop-agent"]).status(0);
    for place in [scene.root(), scene.home()] {
        std::os::unix::fs::chown(place, Some(61_001), Some(61_001)).unwrap();
    }
    let runtime = scene.root().join("runtime");
    fs::create_dir(&runtime).unwrap();
    std::os::unix::fs::chown(&runtime, Some(61_001), Some(61_001)).unwrap();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
    let scene = scene.env("XDG_RUNTIME_DIR", runtime);
    let ours = |words: &[&str]| {
        let output = scene
            .command(words)
            .uid(61_001)
            .gid(61_001)
            .output()
            .unwrap();
        scene::Did::of(words.join(" "), output)
    };
    let look = "test -n \"$WHATAP_LAUNCH\" && exit 7";
    ours(&["whatap-start-agent", "sh", "-c", look])
        .status(7)
        .stderr("");
    ours(&["whatap-stop-agent"]).status(0);
}

#[test]
fn a_local_server_that_has_no_place_costs_one_line() {
    let scene = Scene::new().file("occupied", 0o644, "");
    let place = scene.root().join("occupied/server");
    let scene = scene.env("WHATAP_SERVER_DATA_DIR", place);
    let seen = on_a_terminal(&scene, &["true"]);
    assert_eq!(seen.lines().count(), 1, "{seen}");
    assert!(
        seen.contains("no local server") && seen.contains("occupied/server"),
        "{seen}"
    );
    let scene = scene.env("WHATAP_LOCAL_SERVER", "true");
    scene
        .start(&["true"])
        .status(0)
        .complains(&["no local server"]);
    scene.run(&["whatap-stop-agent"]).status(0);
}
