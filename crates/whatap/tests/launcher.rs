//! `whatap-start-agent` as its users meet it. The names in brackets are those of the acceptance list.

mod scene;

use std::fs;
use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use scene::{Scene, other_pythons, program};

#[test]
fn the_commands_status_is_ours() {
    // [L01]
    let scene = Scene::new();
    scene
        .start(&["sh", "-c", "exit 7"])
        .status(7)
        .stdout("")
        .stderr("");
    scene.start(&["true"]).status(0);
    let killed = scene
        .command(&["whatap-start-agent", "sh", "-c", "kill -TERM $$"])
        .output()
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&killed.status),
        Some(15)
    );
}

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
fn stdout_belongs_to_the_application() {
    // [L02], [L13]
    let scene = Scene::new();
    scene
        .start(&["python3", "-c", "print(1)"])
        .status(0)
        .stdout("1\n")
        .stderr("");
    let nested = "import subprocess, sys; print(int(subprocess.check_output([sys.executable, '-c', 'print(42)'])) + 1)";
    scene
        .start(&["python3", "-c", nested])
        .status(0)
        .stdout("43\n")
        .stderr("");
}

#[test]
fn a_command_that_cannot_be_found_is_127_and_starts_nothing() {
    // [L03]
    let scene = Scene::new();
    scene
        .start(&["nosuch"])
        .status(127)
        .stdout("")
        .complains(&["whatap-start-agent: nosuch: not found"]);
    scene
        .start(&["/no/such"])
        .status(127)
        .stdout("")
        .complains(&["/no/such"]);
    scene.run(&["whatap-stop-agent"]).status(3);
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    let scene = Scene::new()
        .file("x/plain", 0o644, "")
        .file("x/app.py", 0o644, "")
        .file("x/lost", 0o755, "#!/no/such/shell\n");
    scene
        .start(&["x/plain"])
        .status(126)
        .complains(&["x/plain", "not executable"]);
    scene
        .start(&["./x"])
        .status(126)
        .complains(&["is a directory"]);
    scene
        .start(&["x/app.py"])
        .status(126)
        .mentions(&["hint: whatap-start-agent python x/app.py"]);
    scene
        .start(&["x/lost"])
        .status(126)
        .complains(&["interpreter"]);
}

#[test]
fn the_search_is_the_shells() {
    // A directory of that name is passed over, a script without `#!` is one for sh, an idle Python file gets its Python.
    let scene = Scene::new()
        .file("a/tool/inside", 0o644, "")
        .file("b/tool", 0o755, "echo \"$0 $1\"\n")
        .file("job.py", 0o644, "import sys; print(sys.argv[1])\n");
    let path = format!(
        "{0}/a:{0}/b:{1}",
        scene.root().display(),
        std::env::var("PATH").unwrap()
    );
    let scene = scene.env("PATH", path);
    let tool = scene.root().join("b/tool");
    scene
        .start(&["tool", "x"])
        .status(0)
        .stdout(&format!("{} x\n", tool.display()));
    scene.start(&["job.py", "done"]).status(0).stdout("done\n");
}

#[test]
fn the_process_keeps_its_id() {
    // [L04]
    let scene = Scene::new();
    let line = format!(
        "echo $$; exec {} sh -c 'echo $$'",
        program("whatap-start-agent").display()
    );
    let seen = scene.run(&["sh", "-c", &line]).status(0);
    let ids: Vec<&str> = seen.stdout.lines().collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
}

#[test]
fn python_path_keeps_the_users_entries() {
    // [L05]
    let scene = Scene::new();
    let boot = boot(&scene);
    for (before, after) in [
        (None, boot.clone()),
        (Some(String::new()), boot.clone()),
        (Some("/a:/b".into()), format!("{boot}:/a:/b")),
        (Some(format!("/a:{boot}:/b")), format!("{boot}:/a:/b")),
    ] {
        let mut command = scene.command(&[
            "whatap-start-agent",
            "sh",
            "-c",
            "printf %s \"$PYTHONPATH\"",
        ]);
        if let Some(before) = &before {
            command.env("PYTHONPATH", before);
        }
        let out = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), after, "{before:?}");
    }
    let launcher = program("whatap-start-agent");
    let launcher = launcher.to_str().unwrap();
    let scene = scene.env("PYTHONPATH", "/a");
    scene
        .start(&[launcher, "sh", "-c", "printf %s \"$PYTHONPATH\""])
        .stdout(&format!("{boot}:/a"));
}

fn boot(scene: &Scene) -> String {
    let seen = scene
        .start(&["sh", "-c", "printf %s \"${PYTHONPATH%%:*}\""])
        .status(0);
    assert!(
        seen.stdout.ends_with("/whatap/bootstrap"),
        "{}",
        seen.stdout
    );
    seen.stdout
}

#[test]
fn nothing_of_ours_is_left_in_the_process() {
    // No child to wait for, no descriptor, no changed signal: the program finds what it would have found without us.
    let scene = Scene::new();
    let look = r#"
import os, json
def field(name):
    return [l.split()[1] for l in open('/proc/self/status') if l.startswith(name)]
try:
    os.wait()
    children = True
except ChildProcessError:
    children = False
fds = sorted(int(f) for f in os.listdir('/proc/self/fd'))
print(json.dumps([children, len(fds), field('SigBlk'), field('SigIgn'), field('Threads'), os.getcwd()]))
"#;
    let bare = scene.run(&["python3", "-S", "-c", look]).status(0);
    scene
        .start(&["python3", "-S", "-c", look])
        .status(0)
        .stdout(&bare.stdout);
}

#[test]
fn signals_that_were_ignored_and_descriptors_that_were_closed_stay_so() {
    let scene = Scene::new();
    let launcher = program("whatap-start-agent");
    let look = "grep SigIgn /proc/self/status; ls /proc/self/fd | head -3 | tr '\\n' ' '";
    for (before, redirect) in [("trap '' PIPE;", ""), ("trap '' HUP;", ""), ("", "<&-")] {
        let bare = scene.run(&[
            "sh",
            "-c",
            &format!("{before} exec sh -c \"{look}\" {redirect}"),
        ]);
        let ours = scene.run(&[
            "sh",
            "-c",
            &format!(
                "{before} exec {} sh -c \"{look}\" {redirect}",
                launcher.display()
            ),
        ]);
        assert_eq!(
            ours.stdout, bare.stdout,
            "{before} {redirect}: {}",
            ours.stderr
        );
    }
}

#[test]
fn our_options_end_where_the_command_begins() {
    let scene = Scene::new();
    scene
        .start(&["--", "echo", "--help", "--home"])
        .status(0)
        .stdout("--help --home\n");
    scene
        .start(&["sh", "-c", "echo $0 $1", "--version", "--"])
        .stdout("--version --\n");
    scene
        .start(&["--bogus", "echo"])
        .status(125)
        .stdout("")
        .complains(&["--bogus"]);
    scene
        .start(&[])
        .status(125)
        .stdout("")
        .complains(&["no command"]);
    let help = scene.start(&["--help"]).status(0).stderr("");
    assert!(help.stdout.contains("--home"));
    scene.start(&["--version"]).status(0).stdout(concat!(
        "whatap-start-agent ",
        env!("CARGO_PKG_VERSION"),
        "\n"
    ));
    let plan = scene
        .start(&["--dry-run", "--app_name", "shop", "echo", "x"])
        .status(0);
    assert!(
        plan.stdout.contains("traced=true") && plan.stdout.contains("!app_name=shop"),
        "{}",
        plan.stdout
    );
}

#[test]
fn switched_off_means_as_if_we_were_not_there() {
    let scene = Scene::new().env("WHATAP_ENABLED", "false");
    scene
        .start(&["sh", "-c", "echo \"[$PYTHONPATH$WHATAP_LAUNCH]\""])
        .status(0)
        .stdout("[]\n")
        .stderr("");
    scene.run(&["whatap-stop-agent"]).status(3);
}

#[test]
fn parallel_starts_make_one_agent_and_leave_the_file_alone() {
    // [L07]
    let conf = "# mine\napp_name=x\nagent_linger_sec=30\n";
    let scene = Scene::new().conf(conf);
    for _ in 0..3 {
        let mut running: Vec<_> = (0..10)
            .map(|_| {
                scene
                    .command(&["whatap-start-agent", "true"])
                    .stdin(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for child in &mut running {
            assert!(child.wait().unwrap().success());
        }
    }
    assert_eq!(scene.conf_text(), conf);
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let launch = scene
            .start(&["sh", "-c", "printf %s \"$WHATAP_LAUNCH\""])
            .stdout;
        names.insert(
            launch
                .split(';')
                .find(|p| p.starts_with("_name="))
                .map(str::to_owned),
        );
    }
    assert_eq!(names.len(), 1);
    scene.run(&["whatap-stop-agent"]).status(0);
    scene.run(&["whatap-stop-agent"]).status(3);
}

#[test]
fn the_users_sitecustomize_runs_once() {
    // [L12]
    let scene = Scene::new().file("user/sitecustomize.py", 0o644, "print('mine')\n");
    let user = scene.root().join("user");
    let scene = scene.env("PYTHONPATH", user);
    scene
        .start(&[
            "python3",
            "-c",
            "import sitecustomize; print(sitecustomize.__file__.split('/')[-2])",
        ])
        .stdout("mine\nuser\n");
}

#[test]
fn other_interpreters_see_no_foreign_packages() {
    // [L14]
    let scene = Scene::new();
    let boot = boot(&scene);
    for python in other_pythons() {
        let python = python.to_str().unwrap();
        let look = "import sys; print('|'.join(sys.path))";
        let bare = scene.run(&[python, "-c", look]).status(0).stdout;
        let ours = scene
            .start(&[python, "-c", look])
            .status(0)
            .stderr("")
            .stdout;
        let left: Vec<&str> = ours.trim().split('|').filter(|e| *e != boot).collect();
        assert_eq!(left.join("|"), bare.trim(), "{python}");
    }
}

#[test]
fn a_file_of_an_older_version_is_traced() {
    // [L16]: no `apm_enabled`.
    let conf = format!(
        "license={}\nwhatap.server.host=127.0.0.1\napp_name=x\napp_process_name=y\nnet_udp_port=6600\n",
        scene::LICENCE
    );
    let scene = Scene::new().conf(&conf);
    let seen = scene.start(&["--dry-run", "true"]).status(0).stderr("");
    assert!(seen.stdout.contains("traced=true"), "{}", seen.stdout);
}

#[test]
fn a_placeholder_costs_one_line_and_the_doctor_fails_it() {
    // [L17]
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
fn debug_in_the_environment_is_not_ours() {
    // [L24]
    let scene = Scene::new()
        .env("debug", "false")
        .env("WHATAP_PROFILE_STEP_MAX_COUNT", "7");
    let seen = scene
        .start(&["sh", "-c", "echo \"$WHATAP_LAUNCH\""])
        .status(0);
    assert!(!seen.stdout.contains("debug="), "{}", seen.stdout);
    assert!(
        seen.stdout.contains("!profile_step_max_count=7"),
        "{}",
        seen.stdout
    );
}

#[test]
fn flags_that_hide_us_are_pointed_out() {
    let scene = Scene::new();
    scene
        .start(&["python3", "-I", "-c", "print(1)"])
        .status(0)
        .stdout("1\n")
        .complains(&["python -I", "not be traced"]);
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
fn whoever_waits_for_our_output_does_not_wait_for_the_agent() {
    let scene = Scene::new();
    let started = Instant::now();
    let mut child = scene
        .command(&["whatap-start-agent", "echo", "x"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "x\n");
    child.wait().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn secrets_are_not_handed_on() {
    let scene = Scene::new().conf(&format!(
        "license={}\nwhatap.server.host=127.0.0.1\n",
        scene::LICENCE
    ));
    let seen = scene
        .start(&["sh", "-c", "env; cat /proc/$$/cmdline"])
        .status(0);
    assert!(!seen.stdout.contains("x21og"), "{}", seen.stdout);
    let doctor = scene.run(&["whatap-doctor", "--json"]);
    assert!(
        !doctor.stdout.contains("x21og000") && doctor.stdout.contains("x21o…"),
        "{}",
        doctor.stdout
    );
    assert!(fs::read_dir(scene.home()).unwrap().count() >= 1);
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
