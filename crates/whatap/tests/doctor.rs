//! What the doctor finds when something is really wrong, and what it says about it.

mod scene;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use scene::{Did, LICENCE, Scene};
use serde_json::Value;
use whatap_collector::instance::{self, Received};
use whatap_wire::Message;

/// A scene whose language does not depend on who runs the tests.
fn scene() -> Scene {
    let scene = Scene::new()
        .env("LANG", "C")
        .without("LC_ALL")
        .without("LC_MESSAGES");
    let runtime = scene.root().join("runtime");
    fs::create_dir(&runtime).unwrap();
    scene.env("XDG_RUNTIME_DIR", runtime)
}

/// The report as JSON, and the exit status.
fn examine(scene: &Scene, words: &[&str]) -> (Value, i32) {
    let seen = scene.run(&[&["whatap-doctor", "--json"], words].concat());
    (json(&seen), seen.status)
}

fn json(seen: &Did) -> Value {
    serde_json::from_str(&seen.stdout).unwrap_or_else(|e| panic!("{e}: {}", seen.stdout))
}

/// The check with this finding.
#[track_caller]
fn find<'a>(report: &'a Value, finding: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["finding"] == finding);
    found.unwrap_or_else(|| panic!("no {finding} in {report:#}"))
}

#[track_caller]
fn fix(report: &Value, finding: &str) -> String {
    let fix = find(report, finding)["fix"].as_str();
    fix.unwrap_or_else(|| panic!("{finding} has no fix"))
        .to_owned()
}

/// Runs a fix as it was printed, with our programs on PATH.
fn apply(scene: &Scene, fix: &str) -> Did {
    let bin = scene::program("whatap-doctor");
    let path = format!("{}:/usr/bin:/bin", bin.parent().unwrap().display());
    let mut command = scene.command(&["sh", "-c", fix]);
    Did::of(fix.to_owned(), command.env("PATH", path).output().unwrap())
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Names, modes and times of everything below: what changes when something is written.
fn snapshot(dir: &Path) -> BTreeMap<String, (u32, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let key = path.display().to_string();
        found.insert(key, (meta.permissions().mode(), meta.modified().unwrap()));
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    found
}

#[test]
fn a_home_that_is_meant_to_be_open_is_no_home() {
    let scene = scene();
    let mode = |bits| fs::set_permissions(scene.home(), fs::Permissions::from_mode(bits)).unwrap();
    for (bits, mended) in [(0o1777, "--home or WHATAP_HOME"), (0o777, "chmod go-w")] {
        mode(bits);
        let (report, _) = examine(&scene, &[]);
        let checks = report["checks"].as_array().unwrap();
        let home = checks.iter().find(|check| check["id"] == "home").unwrap();
        assert_eq!(home["finding"], "home_open");
        assert!(home["fix"].as_str().unwrap().contains(mended), "{home}");
        scene.run(&["whatap-start-agent", "true"]).status(0);
        assert!(!scene.home().join("logs").exists());
        mode(0o755);
    }
}

#[test]
fn it_changes_nothing_and_starts_nothing() {
    let scene = scene().conf("app_name=a\nlisence=x\n");
    let before = snapshot(&scene.root());
    for words in [
        &[][..],
        &["--json"],
        &["--after-upgrade", "python3", "x.py"],
    ] {
        scene.run(&[&["whatap-doctor"], words].concat());
    }
    assert_eq!(snapshot(&scene.root()), before);
    scene.run(&["whatap-stop-agent"]).status(3);
}

#[test]
fn arguments_that_are_wrong_are_status_64() {
    let scene = scene();
    for words in [&["--live", "x"][..], &["--live", "0"], &["--hone", "/"]] {
        let words = [&["whatap-doctor"], words].concat();
        scene
            .run(&words)
            .status(64)
            .stdout("")
            .complains(&["whatap-doctor: "]);
    }
}

#[test]
fn it_tells_where_each_value_comes_from() {
    let scene = scene()
        .conf("app_name=shop\nprofile_basetime=x\n")
        .env("WHATAP_PROFILE_RATE", "33");
    let (report, status) = examine(&scene, &[]);
    assert_eq!(status, 1);
    let option = |name: &str| {
        let options = report["options"].as_array().unwrap();
        let found = options.iter().find(|o| o["name"] == name).unwrap();
        (found["value"].clone(), found["source"].clone())
    };
    let conf = scene.home().join("whatap.conf");
    let line_1 = format!("{}:1", conf.display());
    assert_eq!(option("app_name"), ("shop".into(), line_1.into()));
    let variable = "environment WHATAP_PROFILE_RATE";
    assert_eq!(option("profile_rate"), ("33".into(), variable.into()));
    assert_eq!(option("profile_basetime"), ("500".into(), "default".into()));
}

#[test]
fn mistyped_keys_and_bad_values_are_mended_by_the_commands_it_prints() {
    let scene = scene().conf("# mine\nappname=shop\nprofile_basetime=soon\n");
    let (report, status) = examine(&scene, &[]);
    assert_eq!(status, 1);
    let checks = report["checks"].as_array().unwrap();
    let wrong: Vec<_> = checks
        .iter()
        .filter(|c| c["finding"] == "configuration_wrong")
        .collect();
    assert_eq!(wrong.len(), 2, "{report:#}");
    assert!(
        wrong[0]["text"]
            .as_str()
            .unwrap()
            .contains("did you mean `app_name`?")
    );
    for check in wrong {
        apply(&scene, check["fix"].as_str().unwrap()).status(0);
    }
    assert_eq!(scene.conf_text(), "# mine\napp_name=shop\n");
    find(&examine(&scene, &[]).0, "configuration_good");
}

#[test]
fn l17_a_placeholder_for_the_license_is_status_2_and_named() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    for bad in ["YOUR_LICENSE", "x-x-x", "x4uj9227hsb9s", ""] {
        let scene = scene().conf(&format!("license={bad}\nwhatap.server.host={address}\n"));
        let (report, status) = examine(&scene, &[]);
        assert_eq!(status, 2, "{report:#}");
        let check = find(&report, "licence_wrong");
        assert_eq!(check["id"], "license");
        assert!(check["text"].as_str().unwrap().contains("license"));
        assert!(fix(&report, "licence_wrong").contains("--license-stdin"));
        // Nobody is asked to prove it, and the way there is looked at all the same.
        assert!(fix(&report, "server_not_asked").contains("--license-stdin"));
    }
    drop(server);
    let scene = scene().conf(&format!("license=bad\nwhatap.server.host={address}\n"));
    find(&examine(&scene, &[]).0, "server_refused");
}

#[test]
fn what_the_environment_says_is_mended_there() {
    let scene = scene().env("WHATAP_LOCAL_SERVER", "false");
    let (report, _) = examine(&scene, &[]);
    let command = "export WHATAP_LOCAL_SERVER=true";
    assert_eq!(fix(&report, "server_local_none"), command);
    let scene = scene
        .conf("whatap.server.host=127.0.0.1:1\n")
        .env("WHATAP_LICENSE", "YOUR_LICENSE");
    let (report, _) = examine(&scene, &[]);
    let command = "export WHATAP_LICENSE=\"$(whatap-server project licence default)\"";
    assert_eq!(fix(&report, "licence_wrong"), command);
    // One cause, one finding.
    let checks = report["checks"].as_array().unwrap();
    let of_licence = checks.iter().filter(|check| {
        let text = check["text"].as_str().unwrap();
        check["state"] == "failure" && text.to_lowercase().contains("license")
    });
    assert_eq!(of_licence.count(), 1, "{report:#}");
}

#[test]
fn a_log_directory_that_cannot_be_used_is_not_called_good() {
    for wanted in ["/proc/nolog", "/nonexistent/logs", "/dev/null"] {
        let scene = scene().env("WHATAP_LOGS", wanted);
        let (report, status) = examine(&scene, &[]);
        let check = find(&report, "place_not_used");
        assert_eq!((&check["id"], status), (&"logs".into(), 1));
        let text = check["text"].as_str().unwrap();
        let used = scene.home().join("logs");
        assert_eq!(
            text,
            format!("{wanted} cannot be used; used instead: {}", used.display())
        );
    }
}

#[test]
fn a_read_only_home_is_not_to_be_written_to() {
    let scene = scene();
    let home = scene.home().display().to_string();
    let doctor = scene::program("whatap-doctor").display().to_string();
    let line = format!(
        "mount --bind {home} {home} && mount -o remount,ro,bind {home} && exec {doctor} --json"
    );
    let seen = scene.run(&["unshare", "-m", "sh", "-c", &line]);
    if !is_root() || seen.stdout.is_empty() {
        return;
    }
    let fix = fix(&json(&seen), "home_not_writable");
    assert!(
        fix.contains("read-only") && !fix.contains("install"),
        "{fix}"
    );
}

#[test]
fn every_problem_has_a_fix() {
    let scene = scene().conf("license=bad\nwhatap.server.host=127.0.0.1:1\n");
    let (report, _) = examine(&scene, &["--live", "1", "nosuch"]);
    for check in report["checks"].as_array().unwrap() {
        assert!(
            check["state"] == "good" || check["fix"].is_string(),
            "{check}"
        );
    }
    find(&report, "command_cannot_start");
}

#[test]
fn a_good_license_is_decoded_and_not_shown() {
    let scene = scene().conf(&format!("license={LICENCE}\n"));
    chmod(&scene.home().join("whatap.conf"), 0o600);
    let seen = scene.run(&["whatap-doctor", "--json"]);
    let text = find(&json(&seen), "licence_good")["text"].clone();
    assert!(text.as_str().unwrap().contains("project "), "{text}");
    assert!(!seen.stdout.contains(LICENCE));
}

#[test]
fn a_license_that_everybody_can_read_is_closed_by_its_command() {
    let scene = scene().conf(&format!("license={LICENCE}\n"));
    chmod(&scene.home().join("whatap.conf"), 0o644);
    let (report, _) = examine(&scene, &[]);
    apply(&scene, &fix(&report, "licence_readable")).status(0);
    let mode = fs::metadata(scene.home().join("whatap.conf")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o640);
}

#[test]
fn homes_that_cannot_be_used_are_told_apart() {
    let scene = scene().file("file", 0o644, "");
    let root = scene.root();
    let home = |name: &str| root.join(name).display().to_string();
    let (report, status) = examine(&scene, &["--home", &home("file")]);
    assert_eq!(
        (status, &find(&report, "home_not_directory")["id"]),
        (2, &"home".into())
    );
    let (report, status) = examine(&scene, &["--home", &home("missing")]);
    assert_eq!(status, 2);
    apply(&scene, &fix(&report, "home_missing")).status(0);
    find(
        &examine(&scene, &["--home", &home("missing")]).0,
        "home_good",
    );
}

#[test]
fn a_home_that_others_can_write_to_is_closed_by_its_command() {
    let scene = scene();
    chmod(&scene.home(), 0o777);
    let (report, status) = examine(&scene, &[]);
    assert_eq!(status, 1);
    let logs = find(&report, "place_good")["text"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        logs.starts_with(scene.root().join("runtime").to_str().unwrap()),
        "{logs}"
    );
    let fix = fix(&report, "home_open");
    assert!(!fix.contains("777"), "{fix}");
    apply(&scene, &fix).status(0);
    find(&examine(&scene, &[]).0, "home_good");
}

#[test]
fn a_home_of_another_user_names_both() {
    if !is_root() {
        return;
    }
    let scene = scene();
    chown(scene.home(), Some(61_002), Some(61_002)).unwrap();
    let ours = |uid: u32| {
        let mut command = scene.command(&["whatap-doctor", "--json"]);
        command.uid(uid).gid(uid).env("HOME", "/nonexistent");
        json(&Did::of(format!("as {uid}"), command.output().unwrap()))
    };
    chmod(&scene.root(), 0o755);
    let report = ours(61_001);
    let text = find(&report, "home_of_another")["text"].to_string();
    assert!(text.contains("61002") && text.contains("61001"), "{text}");
    let command = format!("sudo chown 61001 {}", scene.home().display());
    assert_eq!(fix(&report, "home_of_another"), command);
    // Root is told to look as the one whose home it is.
    let command = fix(&ours(0), "home_of_another");
    assert!(
        command.starts_with("sudo -u '#61002' whatap-doctor --home"),
        "{command}"
    );
}

#[test]
fn a_home_that_we_may_not_write_to_needs_two_directories() {
    if !is_root() {
        return;
    }
    let scene = scene();
    chmod(&scene.root(), 0o755);
    chown(scene.root().join("runtime"), Some(61_001), Some(61_001)).unwrap();
    let ours = || {
        let mut command = scene.command(&["whatap-doctor", "--json"]);
        command.uid(61_001).gid(61_001).env("HOME", "/nonexistent");
        json(&Did::of("doctor".into(), command.output().unwrap()))
    };
    let command = fix(&ours(), "home_not_writable");
    assert!(
        command.starts_with("sudo install -d -m 0750 -o 61001 "),
        "{command}"
    );
    apply(&scene, command.trim_start_matches("sudo ")).status(0);
    let report = ours();
    find(&report, "home_read_only");
    let logs = scene.home().join("logs").display().to_string();
    assert_eq!(find(&report, "place_good")["text"], logs.as_str());
}

#[test]
fn logs_left_by_another_user_are_named_and_given_back() {
    if !is_root() {
        return;
    }
    let scene = scene();
    let logs = scene.home().join("logs");
    fs::create_dir(&logs).unwrap();
    chown(&logs, Some(61_002), Some(61_002)).unwrap();
    let (report, status) = examine(&scene, &[]);
    assert_eq!(status, 1);
    assert_eq!(find(&report, "place_of_another")["id"], "logs");
    apply(&scene, &fix(&report, "place_of_another")).status(0);
    let (report, _) = examine(&scene, &[]);
    assert_eq!(find(&report, "place_good")["text"], logs.to_str().unwrap());
}

#[test]
fn a_disk_without_room_for_the_spool_is_a_warning() {
    let scene = scene();
    let home = scene.home().display().to_string();
    let doctor = scene::program("whatap-doctor").display().to_string();
    // A small disk of its own, seen by this process alone.
    let line = format!("mount -t tmpfs -o size=1m,mode=755 none {home} && exec {doctor} --json");
    let seen = scene.run(&["unshare", "-m", "sh", "-c", &line]);
    if !is_root() || seen.stdout.is_empty() {
        return;
    }
    assert_eq!(find(&json(&seen), "spool_disk_short")["state"], "warning");
}

#[test]
fn a_configuration_that_we_may_not_read_is_a_failure() {
    if !is_root() {
        return;
    }
    let scene = scene().conf("app_name=a\n");
    chmod(&scene.home().join("whatap.conf"), 0o600);
    chmod(&scene.root(), 0o755);
    let mut command = scene.command(&["whatap-doctor", "--json"]);
    command.uid(61_001).gid(61_001).env("HOME", "/nonexistent");
    let seen = Did::of("doctor".into(), command.output().unwrap()).status(2);
    // What it may hold is not guessed at.
    let report = json(&seen);
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["id"] != "license"));
    let fix = fix(&report, "configuration_wrong");
    assert_eq!(find(&report, "server_unknown")["fix"], fix.as_str());
    assert!(fix.starts_with("sudo chgrp 61001 "), "{fix}");
    // The directory around it may be closed, too.
    chmod(&scene.home(), 0o700);
    let ours = || {
        let mut command = scene.command(&["whatap-doctor", "--json"]);
        command.uid(61_001).gid(61_001).env("HOME", "/nonexistent");
        json(&Did::of("doctor".into(), command.output().unwrap()))
    };
    let fix = self::fix(&ours(), "configuration_wrong");
    apply(&scene, &fix.replace("sudo ", "")).status(0);
    find(&ours(), "configuration_good");
}

#[test]
fn l21_a_file_that_cannot_be_made_leaves_its_code_where_the_doctor_finds_it() {
    if !is_root() {
        return;
    }
    let scene = scene();
    chmod(&scene.root(), 0o755);
    chown(scene.root().join("runtime"), Some(61_001), Some(61_001)).unwrap();
    let ours = |words: &[&str]| {
        let mut command = scene.command(words);
        command.uid(61_001).gid(61_001).env("HOME", "/nonexistent");
        Did::of(words.join(" "), command.output().unwrap())
    };
    ours(&["whatap-setting-config", "--app_name", "a"]).status(73);
    let report = json(&ours(&["whatap-doctor", "--json"]));
    let text = find(&report, "log_line")["text"].to_string();
    let conf = scene.home().join("whatap.conf").display().to_string();
    assert!(
        text.contains("CONF FILE ERROR") && text.contains(&conf),
        "{text}"
    );
}

#[test]
fn it_meets_the_agent_and_misses_a_stopped_one() {
    let scene = scene();
    find(&examine(&scene, &[]).0, "agent_none");
    scene.start(&["true"]).status(0);
    let (report, _) = examine(&scene, &[]);
    let text = find(&report, "agent_runs")["text"].to_string();
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    scene.run(&["whatap-stop-agent"]).status(0);
    find(&examine(&scene, &[]).0, "agent_none");
}

/// Has an instance's name and answers each connection's first message, or none, until it is dropped.
struct Pretender {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pretender {
    fn of(scene: &Scene, answer: Option<Message>) -> Self {
        let listener = instance::hold(&instance::name(&scene.home())).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut met = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
                met.extend(instance::accept(listener.as_fd()).unwrap());
                for connection in &met {
                    let said = instance::receive(connection.as_fd()).unwrap();
                    if let (Received::Message(..), Some(answer)) = (said, &answer) {
                        instance::send(connection.as_fd(), answer, &[]).unwrap();
                    }
                }
            }
        });
        Self {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Pretender {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn an_agent_of_another_version_or_without_an_answer_is_told() {
    let scene = scene();
    let status = Message::new("ok").with("version", "2.9.0").with("pid", 7);
    let _older = Pretender::of(&scene, Some(status));
    let (report, status) = examine(&scene, &["--home", scene.home().to_str().unwrap()]);
    assert_eq!(status, 1);
    assert!(
        find(&report, "agent_other_version")["text"]
            .to_string()
            .contains("2.9.0")
    );
    let silent = self::scene();
    let _silent = Pretender::of(&silent, None);
    let (report, status) = examine(&silent, &[]);
    assert_eq!(status, 2);
    assert!(fix(&report, "agent_silent").starts_with("whatap-stop-agent --home"));
}

#[test]
fn logs_that_the_user_wants_elsewhere_are_looked_for_there() {
    let scene = scene();
    let logs = scene.root().join("elsewhere");
    fs::create_dir(&logs).unwrap();
    fs::write(
        logs.join("whatap-boot.log"),
        "x pid 7 ended while serving GET /\n",
    )
    .unwrap();
    let scene = scene.env("WHATAP_LOGS", logs.clone());
    let (report, _) = examine(&scene, &[]);
    assert_eq!(find(&report, "place_good")["text"], logs.to_str().unwrap());
    find(&report, "log_line");
}

#[test]
fn an_option_that_the_running_agent_has_otherwise_is_shown_beside_ours() {
    let scene = scene();
    let mut launch = scene.command(&["whatap-start-agent", "true"]);
    launch.env("WHATAP_PROFILE_RATE", "77");
    assert!(launch.status().unwrap().success());
    let (report, _) = examine(&scene, &[]);
    let options = report["options"].as_array().unwrap();
    let rate = options
        .iter()
        .find(|o| o["name"] == "profile_rate")
        .unwrap();
    assert_eq!(
        (&rate["value"], &rate["running"]["value"]),
        (&"10".into(), &"77".into())
    );
}

#[test]
fn servers_that_cannot_be_reached_are_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (refused, mute) = (port(&closed), port(&silent));
    drop(closed);
    for (host, finding) in [
        (format!("127.0.0.1:{refused}"), "server_refused"),
        (format!("127.0.0.1:{mute}"), "server_silent"),
        ("no-such-name.invalid".to_owned(), "server_unresolved"),
        ("192.0.2.1".to_owned(), "server_in_the_clear"),
    ] {
        let text = format!("license={LICENCE}\nwhatap.server.host={host}\n");
        let (report, status) = examine(&scene().conf(&text), &[]);
        assert_eq!(status, 2, "{report:#}");
        let check = find(&report, finding);
        assert_eq!(
            (&check["id"], check["fix"].is_string()),
            (&"server".into(), true)
        );
    }
}

#[test]
fn who_answers_and_is_no_server_of_ours_is_found_out() {
    use std::io::{Read as _, Write as _};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let text = format!("license={LICENCE}\nwhatap.server.host={host}\n");
    let (report, status) = examine(&scene().conf(&text), &[]);
    assert_eq!(status, 2);
    assert!(
        find(&report, "server_foreign")["text"]
            .to_string()
            .contains("404")
    );
}

#[test]
fn the_udp_port_is_looked_at_only_when_it_is_asked_for() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let scene = scene().conf(&format!("net_udp_port={port}\n"));
    let (report, _) = examine(&scene, &[]);
    assert_eq!(find(&report, "udp_taken")["state"], "warning");
    let (report, _) = examine(&self::scene(), &[]);
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["id"] != "udp"));
}

#[test]
fn commands_that_would_not_be_traced_are_recognised() {
    let scene = scene()
        .file("no_site.ini", 0o644, "[uwsgi]\nno-site = true\n")
        .file("x.py", 0o644, "")
        .file(
            "start.py",
            0o644,
            "import whatap\nwhatap.agent  # as printed\n",
        )
        .file("bin/uwsgi", 0o755, "#!/bin/sh\n")
        .file("bin/python3.2", 0o755, "#!/bin/sh\n")
        .file("bin/sudo", 0o755, "#!/bin/sh\n");
    let root = scene.root();
    let path = format!(
        "{}:{}",
        root.join("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let scene = scene.env("PATH", path);
    for (command, finding, state) in [
        ("python3 -E x.py", "python_flag", 1),
        ("python3 -uI -m app", "python_flag", 1),
        ("env -i python3 x.py", "command_environment", 1),
        ("nice -n 5 env -i python3 x.py", "command_environment", 1),
        ("env A=1 nice python3 -I x.py", "python_flag", 1),
        (
            "whatap-start-agent whatap-start-agent nosuch",
            "command_cannot_start",
            2,
        ),
        ("python3 start.py", "agent_not_called", 1),
        ("python3 nosuchfile.py", "command_cannot_start", 2),
        ("uwsgi --ini /nonexistent.ini", "command_cannot_start", 2),
        ("sudo python3 x.py", "command_environment", 1),
        ("uwsgi --ini no_site.ini", "uwsgi_obstacle", 1),
        ("python3.2 x.py", "python_old", 2),
        ("nosuch", "command_cannot_start", 2),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let (report, status) = examine(&scene, &words);
        assert_eq!(
            find(&report, finding)["state"] == "failure",
            state == 2,
            "{command}"
        );
        assert!(status >= state, "{command}: {status}");
    }
}

#[test]
fn commands_that_are_traced_are_good_with_what_runs_in_them() {
    let scene = scene()
        .file("site/sitecustomize.py", 0o644, "")
        .file("bin/python3.11", 0o755, "")
        .file("bin/gunicorn", 0o755, "");
    let bin = scene.root().join("bin");
    let head = format!("#!{}\n", bin.join("python3.11").display());
    fs::write(bin.join("gunicorn"), head).unwrap();
    symlink(bin.join("python3.11"), bin.join("python3")).unwrap();
    let site = scene.root().join("site");
    let scene = scene
        .env("PYTHONPATH", site.clone())
        .env("PATH", bin.clone());
    let command = ["whatap-start-agent", "gunicorn", "--preload", "app:app"];
    let (report, _) = examine(&scene, &command);
    let text = |finding: &str| find(&report, finding)["text"].as_str().unwrap().to_owned();
    assert_eq!(
        text("command_good"),
        bin.join("gunicorn").display().to_string()
    );
    assert_eq!(
        text("python_good"),
        format!("{}, Python 3.11", bin.join("python3.11").display())
    );
    assert!(text("workers_preload").starts_with("gunicorn --preload"));
    assert!(text("sitecustomize").starts_with(site.to_str().unwrap()));
}

#[test]
fn known_faults_in_the_log_come_with_what_to_do() {
    let scene = scene();
    let logs = scene.home().join("logs");
    fs::create_dir(&logs).unwrap();
    let day = logs.join("whatap-boot-20990101.log");
    let lines = "t x[1] uplink: 127.0.0.1:1: connection refused; trying on\n\
                 t x[1] pid 7 ended while serving GET /slow\n";
    fs::write(&day, lines).unwrap();
    let (report, status) = examine(&scene, &[]);
    assert_eq!(status, 1);
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().filter(|check| check["id"] == "log");
    assert_eq!(found.count(), 2, "{report:#}");
    fs::write(
        &day,
        format!("{lines}t x[1] uplink: connected to 127.0.0.1:1\n"),
    )
    .unwrap();
    let text = find(&examine(&scene, &[]).0, "log_line")["text"].to_string();
    assert!(text.contains("GET /slow"), "{text}");
}

#[test]
fn what_an_upgrade_left_behind_is_removed_by_its_command() {
    let scene = scene();
    symlink(
        "/nonexistent/whatap_python",
        scene.home().join("whatap_python"),
    )
    .unwrap();
    fs::write(scene.home().join("whatap_home"), "/h").unwrap();
    let (report, status) = examine(&scene, &["--after-upgrade"]);
    assert_eq!(status, 1);
    apply(&scene, &fix(&report, "upgrade_left")).status(0);
    find(&examine(&scene, &["--after-upgrade"]).0, "upgrade_clean");
}

#[test]
fn without_a_server_the_test_transaction_is_not_acknowledged() {
    let scene = scene();
    let (report, status) = examine(&scene, &["--live", "3"]);
    assert_eq!(status, 2);
    let text = find(&report, "live_not_acknowledged")["text"].to_string();
    assert!(text.contains("no local server runs"), "{text}");
}

#[test]
fn what_runs_untraced_is_no_live_transaction() {
    let scene = scene().conf("enabled=false\n");
    let (report, status) = examine(&scene, &["--live", "20"]);
    assert_eq!(status, 2);
    find(&report, "live_untraced");
    assert_eq!(find(&report, "switched_off")["state"], "warning");
    apply(&scene, &fix(&report, "switched_off")).status(0);
    let (report, _) = examine(&scene, &[]);
    find(&report, "configuration_good");
}

#[test]
fn it_speaks_korean_to_koreans_and_the_names_stay() {
    let scene = scene().conf("lisence=x\n").env("LC_ALL", "ko_KR.UTF-8");
    let seen = scene.run(&["whatap-doctor"]).status(1);
    for word in ["정상", "경고", "조치: whatap-setting-config", "실패 0"] {
        assert!(
            seen.stdout.contains(word),
            "{word} is not in {}",
            seen.stdout
        );
    }
    let (korean, _) = examine(&scene, &[]);
    let (english, _) = examine(&scene.env("LC_ALL", "en_US.UTF-8"), &[]);
    assert_eq!(
        (&korean["language"], &english["language"]),
        (&"ko".into(), &"en".into())
    );
    let names = |report: &Value| {
        let checks = report["checks"].as_array().unwrap();
        let rows = checks
            .iter()
            .map(|c| (c["id"].clone(), c["finding"].clone(), c["state"].clone()));
        rows.collect::<Vec<_>>()
    };
    assert_eq!(names(&korean), names(&english));
}

#[test]
fn what_it_quotes_of_other_programs_is_korean_too() {
    let wrong = "appname=x\nstrange_thing=1\nprofile_rate=abc\nprofile_rate=999\ndebug=maybe\nstray\n=x\n\
                 local_server=perhaps\nlicense=YOUR_LICENSE\napp_name=<name>\napp_process_name=a #b\n";
    let long = format!("object_name={}\n", "x".repeat(5000));
    let scene = scene()
        .conf(&(wrong.to_owned() + &long))
        .env("LC_ALL", "ko_KR.UTF-8");
    let (report, _) = examine(&scene, &["nosuch"]);
    let checks = report["checks"].as_array().unwrap();
    let wrong = checks.iter().filter(|check| check["state"] != "good");
    let texts: Vec<&str> = wrong.map(|check| check["text"].as_str().unwrap()).collect();
    assert!(texts.len() >= 11, "{texts:#?}");
    for text in texts {
        let quoted = text.rsplit(": ").next().unwrap();
        let is_korean = quoted.chars().any(|c| ('가'..='힣').contains(&c));
        assert!(is_korean, "{text}");
    }
}

#[test]
fn the_document_has_the_documented_fields_and_no_others() {
    let scene = scene().conf("appname=x\nlicense=YOUR_LICENSE\n");
    scene.start(&["true"]).status(0);
    let (report, status) = examine(&scene, &["python3", "-E"]);
    let keys = |value: &Value| {
        let object = value.as_object().unwrap();
        object.keys().cloned().collect::<Vec<_>>()
    };
    let mut expected = [
        "schema", "version", "language", "uid", "home", "config", "state", "checks", "options",
    ];
    expected.sort_unstable();
    let mut found = keys(&report);
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(
        (&report["schema"], &report["state"], status),
        (&1.into(), &"failure".into(), 2)
    );
    for check in report["checks"].as_array().unwrap() {
        let allowed = ["id", "finding", "state", "text", "fix"];
        assert!(
            keys(check)
                .iter()
                .all(|key| allowed.contains(&key.as_str())),
            "{check}"
        );
        assert!(["good", "warning", "failure"].contains(&check["state"].as_str().unwrap()));
    }
    for option in report["options"].as_array().unwrap() {
        let allowed = ["name", "value", "source", "default", "running"];
        assert!(
            keys(option)
                .iter()
                .all(|key| allowed.contains(&key.as_str())),
            "{option}"
        );
    }
    let document = include_str!("../../../docs/doctor.md");
    for key in ["schema", "finding", "fix", "running", "default"] {
        assert!(
            document.contains(&format!("`{key}`")),
            "{key} is not in docs/doctor.md"
        );
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let scene = scene().env("TERM", "xterm");
    let plain = scene.run(&["whatap-doctor"]);
    assert!(!plain.stdout.contains('\u{1b}'));
    if which::which("script").is_err() {
        return;
    }
    let doctor = scene::program("whatap-doctor").display().to_string();
    let terminal = |scene: &Scene| {
        let mut command = scene.command(&["script", "-qec", &doctor, "/dev/null"]);
        let command = command.stdin(std::process::Stdio::null());
        Did::of("script".into(), command.output().unwrap()).stdout
    };
    assert!(terminal(&scene).contains("\u{1b}[3"));
    let without = scene.env("NO_COLOR", OsStr::new("1"));
    assert!(!terminal(&without).contains("\u{1b}[3"));
}
