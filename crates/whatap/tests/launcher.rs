//! `whatap-start-agent` as its users meet it. Tests named `lNN_` are the numbered checks of the suite.

mod scene;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use scene::{Scene, program, pythons};

#[test]
fn l01_the_commands_status_is_ours() {
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
fn l03_a_command_that_cannot_be_found_is_127_and_starts_nothing() {
    let scene = Scene::new();
    scene
        .start(&["nosuch"])
        .status(127)
        .stdout("")
        .complains(&["whatap-start-agent: nosuch: not found"]);
    scene
        .start(&[""])
        .status(127)
        .complains(&["whatap-start-agent: '': not found"]);
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
fn l04_the_process_keeps_its_id() {
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
fn l05_python_path_keeps_the_users_entries() {
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
        .complains(&["COMMAND"]);
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
        plan.stdout.contains("traced=true") && plan.stdout.contains("app_name=shop"),
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
fn l12_the_users_sitecustomize_runs_once() {
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
fn l14_other_interpreters_see_no_foreign_packages() {
    let scene = Scene::new();
    let boot = boot(&scene);
    for python in pythons() {
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
fn l24_debug_in_the_environment_is_not_ours() {
    let scene = Scene::new()
        .env("debug", "false")
        .env("WHATAP_PROFILE_STEP_MAX_COUNT", "7");
    let seen = scene
        .start(&["sh", "-c", "echo \"$WHATAP_LAUNCH\""])
        .status(0);
    assert!(!seen.stdout.contains("debug="), "{}", seen.stdout);
    assert!(
        seen.stdout.contains("profile_step_max_count=7"),
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
    let python = scene.run(&["sh", "-c", "command -v python3"]).stdout;
    let script = format!("#!{} -E\nprint(2)\n", python.trim());
    let scene = scene.file("tool", 0o755, &script);
    scene
        .start(&["./tool"])
        .status(0)
        .stdout("2\n")
        .complains(&["python -E", "not be traced"]);
}

#[test]
fn what_is_named_and_cannot_be_used_is_one_line() {
    for (variable, value, line) in [
        (
            "WHATAP_CONFIG",
            "prod.conf",
            "prod.conf does not exist; going on without it",
        ),
        (
            "WHATAP_CONFIG_HOME",
            "/nonexistent",
            "/nonexistent/whatap.conf does not exist",
        ),
        (
            "WHATAP_LOGS",
            "/proc/nolog",
            "/proc/nolog cannot be used for logs",
        ),
        (
            "WHATAP_LOGS",
            "/etc/hostname",
            "/etc/hostname cannot be used for logs",
        ),
        (
            "WHATAP_LOGS",
            "/nonexistent/logs",
            "cannot be used for logs",
        ),
    ] {
        let scene = Scene::new().env(variable, value);
        let seen = scene.start(&["echo", "x"]).status(0).stdout("x\n");
        seen.complains(&[&format!("{variable}: "), line]);
        let doctor = scene.run(&["whatap-doctor"]).stdout;
        assert!(doctor.contains(line), "{doctor}");
    }
    let scene = Scene::new();
    let logs = scene.root().join("logs");
    let scene = scene.env("WHATAP_LOGS", logs);
    scene.start(&["echo", "x"]).status(0).stderr("");
    let scene = Scene::new().file("pyproject.toml", 0o644, "[tool]\nwhatap = 3\n");
    let line = "pyproject.toml:2: ignored: `tool.whatap` is not a table";
    scene.start(&["echo", "x"]).status(0).complains(&[line]);
    scene
        .run(&["whatap-setting-config", "--pyproject", "--check"])
        .status(65)
        .complains(&[line]);
}

#[test]
fn nobody_chooses_the_home_of_a_user_without_a_directory() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    const USER: u32 = 61_057;
    let home = Path::new("/tmp/whatap-61057-home");
    let scene = Scene::new().without("WHATAP_HOME").without("HOME");
    let scene = scene.without("XDG_DATA_HOME").within("/");
    let ours = |words: &[&str]| {
        let mut command = scene.command(words);
        command.uid(USER).gid(USER);
        scene::Did::of(words.join(" "), command.output().unwrap())
    };
    let clear = || {
        for name in ["whatap-61057-home", "whatap-61057", "whatap-61057-tracer"] {
            drop(fs::remove_dir_all(Path::new("/tmp").join(name)));
        }
    };
    clear();
    fs::create_dir(home).unwrap();
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(home.join("whatap.conf"), "app_name=planted\n").unwrap();
    chown(home, Some(USER + 1), Some(USER + 1)).unwrap();
    chown(home.join("whatap.conf"), Some(USER + 1), Some(USER + 1)).unwrap();
    let words = ["whatap-start-agent", "sh", "-c", "echo \"$WHATAP_LAUNCH\""];
    let seen = ours(&words).status(0);
    assert!(
        seen.stdout.contains("_app=sh") && !seen.stdout.contains("planted"),
        "{}",
        seen.stdout
    );
    seen.complains(&[
        "/tmp/whatap-61057-home: not used as the home",
        "WHATAP_HOME",
    ]);
    ours(&["whatap-setting-config", "--app_name", "x"])
        .status(73)
        .complains(&["not used as the home"]);
    ours(&["whatap-stop-agent", "--timeout", "5"]);

    clear();
    ours(&["whatap-setting-config", "--app_name", "x"]).status(0);
    assert_eq!(
        fs::metadata(home).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let seen = ours(&words).status(0).stderr("");
    assert!(seen.stdout.contains("app_name=x"), "{}", seen.stdout);
    ours(&["whatap-stop-agent", "--timeout", "5"]);
    clear();
}

#[test]
fn a_pipe_in_the_place_of_a_file_keeps_nobody_waiting() {
    for name in ["plugin.json", "paramkey.txt", "whatap.conf"] {
        let scene = Scene::new();
        let pipe = scene.home().join(name);
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (program, words) in [
            ("whatap-start-agent", &["echo", "x"][..]),
            ("whatap-doctor", &[]),
            ("whatap-setting-config", &["--check"]),
            ("whatap-stop-agent", &["--timeout", "5"]),
        ] {
            let path = scene::program(program);
            let seen = scene.run(&[&["timeout", "20", path.to_str().unwrap()], words].concat());
            assert_ne!(seen.status, 124, "{program} hangs with {name}");
            if program == "whatap-start-agent" {
                let seen = seen.status(0).stdout("x\n");
                if name != "paramkey.txt" {
                    seen.complains(&[name, "cannot be read: not a regular file"]);
                }
            }
        }
    }
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

#[test]
fn l02_stdout_belongs_to_the_application() {
    let scene = Scene::new();
    scene
        .start(&["python3", "-c", "print(1)"])
        .status(0)
        .stdout("1\n")
        .stderr("");
}

#[test]
fn l13_what_a_child_prints_can_be_parsed() {
    let scene = Scene::new();
    let nested = "import subprocess, sys; print(int(subprocess.check_output([sys.executable, '-c', 'print(42)'])) + 1)";
    scene
        .start(&["python3", "-c", nested])
        .status(0)
        .stdout("43\n")
        .stderr("");
}

#[test]
fn l07_parallel_starts_make_one_agent_and_leave_the_file_alone() {
    let conf = "# mine\napp_name=x\nagent_linger_sec=3\n";
    for round in 0..50 {
        let scene = Scene::new().conf(conf);
        let children: Vec<_> = (0..10)
            .map(|_| {
                let mut command =
                    scene.command(&["whatap-start-agent", "sh", "-c", "echo $WHATAP_LAUNCH"]);
                command.stdin(Stdio::null()).stdout(Stdio::piped());
                command.spawn().unwrap()
            })
            .collect();
        let launches: Vec<_> = children
            .into_iter()
            .map(|child| child.wait_with_output().unwrap())
            .collect();
        let name = |launch: &std::process::Output| {
            assert!(launch.status.success());
            let text = String::from_utf8_lossy(&launch.stdout).into_owned();
            text.split(';')
                .find_map(|pair| pair.strip_prefix("_name=").map(str::to_owned))
        };
        let names: BTreeSet<_> = launches.iter().map(name).collect();
        assert_eq!(names.len(), 1, "round {round}: {names:?}");
        scene.wait_for("one collector", || {
            let running = scene.processes("whatap_python").len();
            assert!(running <= 1, "round {round}: {running} collectors");
            running == 1
        });
        assert_eq!(scene.conf_text(), conf);
        scene.run(&["whatap-stop-agent"]).status(0);
        // A watchdog that comes only now finds the name free; its collector has nobody to serve and ends by itself.
        scene.wait_for("end", || scene.processes("whatap_python").is_empty());
    }
}

/// As upstart looks for the process that is the service: it counts forks with ptrace.
#[test]
fn a_supervisor_that_counts_forks_counts_the_programs_only() {
    for (program, expected) in [("true", 0), ("(exit 0); true", 1)] {
        let scene = Scene::new().conf("agent_linger_sec=1\n");
        let mut command = scene.command(&["whatap-start-agent", "sh", "-c", program]);
        command.stdin(Stdio::null());
        // SAFETY: ptrace(PTRACE_TRACEME) is one system call.
        unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
        let launcher = Pid::from_raw(command.spawn().unwrap().id() as i32);
        assert_eq!(
            waitpid(launcher, None),
            Ok(WaitStatus::Stopped(launcher, Signal::SIGTRAP))
        );
        let seen = ptrace::Options::PTRACE_O_TRACEFORK | ptrace::Options::PTRACE_O_TRACEEXEC;
        ptrace::setoptions(launcher, seen).unwrap();
        ptrace::cont(launcher, None).unwrap();
        let mut forks = 0;
        loop {
            match waitpid(launcher, None).unwrap() {
                WaitStatus::Exited(_, status) => break assert_eq!(status, 0),
                WaitStatus::PtraceEvent(_, _, nix::libc::PTRACE_EVENT_FORK) => {
                    forks += 1;
                    let child = Pid::from_raw(ptrace::getevent(launcher).unwrap() as i32);
                    waitpid(child, Some(WaitPidFlag::__WALL)).unwrap();
                    ptrace::detach(child, None).unwrap();
                    ptrace::cont(launcher, None).unwrap();
                }
                WaitStatus::Stopped(_, signal) if signal != Signal::SIGTRAP => {
                    ptrace::cont(launcher, signal).unwrap();
                }
                _ => ptrace::cont(launcher, None).unwrap(),
            }
        }
        assert_eq!(forks, expected, "{program}");
        scene.wait_for("the collector", || {
            !scene.processes("whatap_python").is_empty()
        });
        scene.run(&["whatap-stop-agent"]).status(0);
    }
}

#[test]
fn l20_a_launch_works_with_and_without_a_running_agent() {
    let scene = Scene::new().conf("agent_linger_sec=30\n");
    let look = "test -n \"$WHATAP_LAUNCH\" && echo traced";
    for _ in 0..2 {
        scene
            .start(&["sh", "-c", look])
            .status(0)
            .stdout("traced\n")
            .stderr("");
    }
    scene.run(&["whatap-stop-agent"]).status(0);
}
