//! Whole instances as real processes: watchdogs, collectors, and tracers that are killed, stopped, and started again.

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::MsgFlags;
use nix::unistd::Pid;
use prost::Message as _;
use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use whatap_collector::instance::{self, Received};
use whatap_collector::pipeline::Now;
use whatap_collector::spool::{self, Limits};
use whatap_wire::Message;
use whatap_wire::frame::{Draft, Frame};
use whatap_wire::otlp::{ExportTraceServiceRequest, Value};

const PATIENCE: Duration = Duration::from_secs(20);

// --- the stories

#[test]
fn what_a_tracer_writes_is_spooled() {
    let home = Home::new();
    let mut tracer = home.tracer();
    assert_eq!(tracer.ask("put 100"), "100");
    assert_eq!(tracer.ask("settled"), "100");
    let status = home.status();
    assert_eq!(
        (status.value("rings"), status.number("clients")),
        (Some("1"), Some(1))
    );
    home.stop();
    assert_eq!(home.spooled(&tracer.ring()), (1..=100).collect());
}

#[test]
fn a_killed_collector_loses_nothing_and_makes_no_duplicate() {
    let home = Home::new();
    let mut tracer = home.tracer();
    let ring = tracer.ring();
    for round in 1..=4 {
        tracer.say("put 5000");
        let collector = home.collector();
        std::thread::sleep(Duration::from_millis(7 * round));
        end(collector, Signal::SIGKILL);
        assert_eq!(tracer.hear(), (5000 * round).to_string());
        home.wait_for_another(collector);
    }
    assert_eq!(tracer.ask("settled"), "20000");
    assert_eq!(tracer.ring(), ring);
    home.stop();
    assert_eq!(home.spooled(&ring), (1..=20_000).collect());
    assert!(
        home.log().contains("restarted after 4 deaths"),
        "{}",
        home.log()
    );
}

#[test]
fn a_stopped_collector_holds_nobody_up() {
    let home = Home::new();
    let mut tracer = home.tracer();
    let collector = home.collector();
    end(collector, Signal::SIGSTOP);
    let started = Instant::now();
    assert!(home.launch(&["true"]).status().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(tracer.ask("put 100"), "100");
    let waiting = home.spawn_tracer(&[]);
    end(collector, Signal::SIGCONT);
    let mut waiting = waiting;
    assert_eq!(waiting.ask("put 3"), "3");
    assert_eq!(
        (tracer.ask("settled"), waiting.ask("settled")),
        ("100".into(), "3".into())
    );
}

#[test]
fn when_the_holder_is_killed_its_collector_takes_its_place() {
    let home = Home::new();
    let mut tracer = home.tracer();
    assert_eq!(tracer.ask("put 10"), "10");
    assert_eq!(tracer.ask("settled"), "10");
    let (holder, collector) = (home.holder(), home.collector());
    end(holder, Signal::SIGKILL);
    home.wait_for_another(collector);
    assert_eq!(home.holder(), collector);
    assert_eq!(tracer.ask("put 10"), "20");
    assert_eq!(tracer.ask("settled"), "20");
    home.stop();
    assert_eq!(home.spooled(&tracer.ring()), (1..=20).collect());
}

#[test]
fn when_holder_and_collector_are_killed_one_waiting_watchdog_takes_over() {
    let home = Home::new();
    let mut first = home.tracer();
    let mut second = home.spawn_tracer(&[]);
    let mut third = home.spawn_tracer(&[]);
    assert_eq!(second.ask("put 5"), "5");
    assert_eq!(second.ask("settled"), "5");
    assert_eq!(third.ask("put 1"), "1");
    let (holder, collector) = (home.holder(), home.collector());
    // As when a unit's whole cgroup is killed; stopped first, so that the collector cannot see the holder die.
    end(collector, Signal::SIGSTOP);
    end(holder, Signal::SIGKILL);
    end(collector, Signal::SIGKILL);
    assert_eq!(second.ask("put 5"), "10");
    home.wait_for_another(collector);
    assert_ne!(home.holder(), holder);
    let ring = second.ring();
    for tracer in [&mut first, &mut second, &mut third] {
        assert_eq!(tracer.ring(), tracer.ask("again"));
    }
    assert_eq!(second.ask("settled"), "10");
    assert_eq!(home.status().value("rings"), Some("3"));
    home.stop();
    assert_eq!(home.spooled(&ring), (1..=10).collect());
}

#[test]
fn a_request_that_dies_with_its_process_is_told_by_name() {
    let home = Home::new();
    let mut keeper = home.tracer();
    let mut tracer = home.spawn_tracer(&[]);
    assert_eq!(tracer.ask("begin GET /killer"), "ok");
    assert_eq!(tracer.ask("put 2"), "2");
    let ring = tracer.ring();
    tracer.kill();
    wait_until("the request to be reported", || {
        home.log().contains("ended while serving GET /killer")
    });
    assert_eq!(keeper.ask("put 1"), "1");
    wait_until("the ring to be forgotten", || {
        home.status().value("rings") == Some("1")
    });
    home.stop();
    let spans = home.spans(&ring);
    let aborted: Vec<_> = spans.iter().filter(|(_, aborted)| *aborted).collect();
    assert_eq!((spans.len(), aborted.len()), (3, 1));
}

#[test]
fn many_short_lived_processes_come_and_go() {
    let home = Home::new();
    let _keeper = home.tracer();
    let before = descriptors(home.collector());
    for _ in 0..10 {
        let mut many: Vec<Tracer> = (0..15).map(|_| home.attach_only()).collect();
        assert!(many.iter_mut().all(|tracer| tracer.ask("put 1") == "1"));
    }
    wait_until("the rings to be forgotten", || {
        home.status().value("rings") == Some("1")
    });
    assert!(descriptors(home.collector()) <= before + 8);
    home.stop();
    assert_eq!(home.all_spans().len(), 150);
}

#[test]
fn a_process_that_ended_before_it_got_its_ring_has_left_its_frames() {
    frames_are_left(&Home::new());
}

#[test]
fn a_process_that_can_have_no_ring_has_left_its_frames() {
    let home = Home::new();
    home.conf("ring_max_count=1\n");
    frames_are_left(&home);
    assert!(home.log().contains("too many processes"));
}

fn frames_are_left(home: &Home) {
    let mut keeper = home.tracer();
    let collector = home.collector();
    end(collector, Signal::SIGSTOP);
    let attach = Message::new("attach").with("pid", 1).with("version", "3");
    let late = |frame: &[u8]| [b"late\n", frame].concat();
    let frames = (7..47).map(|id| {
        let head = Frame {
            id,
            ..Frame::default()
        };
        let draft = Draft {
            head,
            ..Draft::default()
        };
        late(&draft.encode(0))
    });
    let mut packets = vec![attach.encode()];
    packets.extend(frames.chain([late(b"no frame")]));
    let name = home.name.clone();
    let mut process = Command::new("true");
    let leave_them = move || {
        let connection = instance::reach(&name)?;
        for packet in &packets {
            nix::sys::socket::send(connection.as_raw_fd(), packet, MsgFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: a few calls of the system, and the C library's allocator works after a fork.
    unsafe { process.pre_exec(leave_them) };
    assert!(process.status().unwrap().success());
    end(collector, Signal::SIGCONT);
    assert_eq!(keeper.ask("put 2"), "2");
    assert_eq!(keeper.ask("settled"), "2");
    home.stop();
    let own = keeper.ring();
    let others: Vec<_> = home
        .all_spans()
        .into_iter()
        .filter(|(ring, ..)| *ring != own)
        .collect();
    assert!(
        others
            .iter()
            .all(|(_, seq, aborted)| (*seq, *aborted) == (1, false))
    );
    let rings: HashSet<_> = others.iter().map(|(ring, ..)| ring).collect();
    assert_eq!(
        (others.len(), rings.len()),
        (40, 40),
        "each in a ring of its own"
    );
}

#[test]
fn a_changed_file_reaches_running_tracers() {
    let home = Home::new();
    let mut tracer = home.tracer();
    home.conf("profile_step_max_count=77\n");
    wait_until("the option", || {
        tracer.ask("options").contains("profile_step_max_count=77;")
    });
    assert!(
        home.log()
            .contains("configuration changed; in force now: profile_step_max_count\n"),
        "{}",
        home.log()
    );
}

/// Each class of options, each way in which a file changes.
#[test]
fn l23_every_change_of_the_file_counts_within_seconds_and_is_told_once() {
    let home = Home::new();
    let mut tracer = home.tracer();
    let value = |home: &Home, key: &str| {
        let options = home.request(&Message::new("options"));
        options.and_then(|options| options.value(key).map(str::to_owned))
    };
    let becomes = |home: &Home, key: &str, expected: &str| {
        let started = Instant::now();
        wait_until(key, || value(home, key).as_deref() == Some(expected));
        started.elapsed()
    };
    let file = home.path().join("whatap.conf");
    home.conf("profile_basetime=1\napp_name=shop\nhook_method_patterns=m:f\nlisence=x\n");
    becomes(&home, "profile_basetime", "1");
    let log = home.log();
    let line = "configuration changed; in force now: profile_basetime; \
                from the next connection: app_name; \
                only after a restart of the application: hook_method_patterns\n";
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert!(log.contains("did you mean `license`?"), "{log}");

    // An older file of the same size is put back by an atomic replacement.
    let backup = home.path().join("backup");
    fs::copy(&file, &backup).unwrap();
    home.conf("profile_basetime=2\napp_name=shop\nhook_method_patterns=m:f\nlisence=x\n");
    becomes(&home, "profile_basetime", "2");
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(&backup).unwrap().set_modified(old).unwrap();
    fs::rename(&backup, &file).unwrap();
    becomes(&home, "profile_basetime", "1");
    let log = home.log();
    let again = "configuration changed; in force now: profile_basetime\n";
    assert_eq!(log.matches(again).count(), 2, "{log}");

    // A removed key, and then a removed file: back to the defaults, in the tracer too.
    home.conf("app_name=shop\nprofile_step_max_count=5\n");
    becomes(&home, "profile_basetime", "500");
    wait_until("the tracer's option", || {
        tracer.ask("options").contains("profile_step_max_count=5;")
    });
    home.conf("app_name=shop\n");
    wait_until("the tracer's default", || {
        tracer
            .ask("options")
            .contains("profile_step_max_count=1000;")
    });
    fs::remove_file(&file).unwrap();
    becomes(&home, "app_name", "");
    // Unreadable is not absent: the log says so.
    fs::create_dir(&file).unwrap();
    wait_until("the code", || home.log().contains("CONF READ ERROR"));
    fs::remove_dir(&file).unwrap();
    home.conf("");
}

#[test]
fn hangup_reads_everything_again_and_opens_the_log_anew() {
    let home = Home::new();
    let _tracer = home.tracer();
    let moved = home.path().join("moved.log");
    let log = || {
        let mut files = fs::read_dir(home.path().join("logs")).unwrap();
        let ours = |name: &str| name.starts_with("whatap-boot-");
        files.find_map(|file| {
            let file = file.unwrap().path();
            ours(&file.file_name()?.to_string_lossy()).then_some(file)
        })
    };
    fs::rename(log().unwrap(), &moved).unwrap();
    home.conf("profile_rate=3\n");
    // The holder passes it on.
    end(home.holder(), Signal::SIGHUP);
    wait_until("a new file", || {
        log().is_some_and(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.contains("in force now: profile_rate")
        })
    });
}

#[test]
fn strangers_need_the_launchs_token() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let home = Home::new();
    let first = home.tracer();
    let token = first.token.clone();
    let stranger = |token: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "54321", "--regid", "54321", "--clear-groups"]);
        command
            .arg(program())
            .args(["tracer", &home.name])
            .env("TOKEN", token);
        Tracer::over(command)
    };
    assert_eq!(stranger("").hear(), "no uid");
    assert_eq!(stranger(&"0".repeat(32)).hear(), "no token");
    assert_eq!(stranger(&token).ask("put 1"), "1");
}

#[test]
fn an_application_that_is_pid_1_gets_its_last_frames_out() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let home = Home::new();
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork"])
        .arg(program())
        .arg("launch")
        .arg(home.path());
    command.arg(program()).args(["tracer", "{name}"]);
    let mut tracer = Tracer::over(command);
    assert_eq!(tracer.ask("put 50"), "50");
    assert!(tracer.ask("drain").starts_with("ok 50"));
    let ring = tracer.ring();
    drop(tracer);
    // The kernel ends everything in that namespace; what was drained is on disk.
    assert_eq!(home.spooled(&ring), (1..=50).collect());
}

#[test]
fn stop_ends_the_holder_and_who_waits_and_answers_when_that_is_done() {
    let home = Home::new();
    let _first = home.tracer();
    let _second = home.spawn_tracer(&[]);
    wait_until("a watchdog in line", || home.lined_up() == 1);
    home.stop();
    wait_until("no watchdog", || home.watchdogs() == 0);
    assert!(instance::reach(&home.name).is_err());
}

#[test]
fn an_instance_ends_after_its_last_client() {
    let home = Home::new();
    home.conf("agent_linger_sec=1\n");
    let tracer = home.tracer();
    assert_eq!(home.watchdogs(), 1);
    drop(tracer);
    wait_until("the end", || {
        home.watchdogs() == 0 && instance::reach(&home.name).is_err()
    });
    assert!(home.log().contains("no client left"));
}

#[test]
fn term_lets_clients_finish() {
    let home = Home::new();
    let mut tracer = home.tracer();
    assert_eq!(tracer.ask("put 1"), "1");
    let holder = home.holder();
    end(holder, Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(tracer.ask("put 1"), "2");
    assert_eq!(tracer.ask("settled"), "2");
    let ring = tracer.ring();
    drop(tracer);
    wait_until("the end", || home.watchdogs() == 0);
    assert_eq!(home.spooled(&ring), [1, 2].into());
}

#[test]
fn the_application_gets_no_child_no_descriptor_and_we_get_no_secret() {
    let home = Home::new();
    let script = "ls -l /proc/$$/fd | grep -c -E 'socket:|memfd:|anon_inode:'; cat /proc/$$/task/*/children; echo; read line";
    let mut command = home.launch(&["sh", "-c", script]);
    command
        .env("DATABASE_PASSWORD", "s3cret-marker")
        .env("LICENCE", "s3cret-licence")
        .env("WHATAP_LICENSE", "s3cret-licence")
        .env("WHATAP_HOME", home.path());
    let mut application = Tracer::over(command);
    let open = application.hear();
    let children = application.hear();
    assert_eq!(open, "0");
    // The only child is the `cat` that looks.
    assert_eq!(children.split_whitespace().count(), 1, "{children}");
    let (collector, holder) = (home.collector(), home.holder());
    // The licence of the launch's environment came by another way.
    let licence = |home: &Home| {
        let options = home.request(&Message::new("options")).unwrap();
        let said = |key: &str| options.value(key).unwrap_or_default().to_owned();
        (said("license"), said("license.source"))
    };
    let told = ("(set)".to_owned(), "environment of the launch".to_owned());
    assert_eq!(licence(&home), told);
    home.conf("profile_rate=5\n");
    end(collector, Signal::SIGHUP);
    end(collector, Signal::SIGKILL);
    home.wait_for_another(collector);
    assert_eq!(licence(&home), told);
    for pid in [home.collector(), holder] {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        assert!(
            !environment.contains("s3cret") && environment.contains("WHATAP_HOME="),
            "{environment}"
        );
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
            Path::new("/")
        );
        for place in 0..3 {
            assert_eq!(
                fs::read_link(format!("/proc/{pid}/fd/{place}")).unwrap(),
                Path::new("/dev/null")
            );
        }
    }
    application.say("");
}

#[test]
fn a_local_server_is_its_watchdogs_child_and_goes_with_a_stop() {
    let home = Home::new();
    let server = home.path().join("server");
    let script = "#!/bin/sh\ncd \"$5\"\necho \"$@\" >arguments\n(ls -l /proc/$$/fd; env) >seen\necho $$ >pid\nexec sleep 600\n";
    fs::create_dir(home.path().join("data")).unwrap();
    fs::write(&server, script.replace("$5", "$4")).unwrap();
    fs::set_permissions(&server, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut first = home.spawn_tracer(&[("FAKE_SERVER", server.to_str().unwrap())]);
    first.ring();
    let read =
        |name: &str| fs::read_to_string(home.path().join("data").join(name)).unwrap_or_default();
    wait_until("the server", || read("pid").ends_with('\n'));
    let data = home.path().join("data");
    let expected = format!(
        "serve --local --data-dir {} --listen-agents-fd 5 --listen-http-fd 6\n",
        data.display()
    );
    assert_eq!(read("arguments"), expected);
    assert!(read("seen").contains("5 -> socket:") && read("seen").contains("6 -> socket:"));
    assert!(read("seen").contains("WHATAP_SERVER_ONE_TIME_TOKEN=once"));
    let collector = fs::read(format!("/proc/{}/environ", home.collector())).unwrap();
    assert!(!String::from_utf8_lossy(&collector).contains("ONE_TIME_TOKEN=once"));
    // A second launch's watchdog waits in line; the server stays the holder's.
    let _second = home.spawn_tracer(&[]);
    let pid: u64 = read("pid").trim().parse().unwrap();
    home.stop();
    wait_until("the server's end", || {
        fs::read_link(format!("/proc/{pid}/exe")).is_err()
    });
}

#[test]
fn a_tracer_brings_its_ring_to_the_next_instance() {
    let home = Home::new();
    let mut tracer = home.tracer();
    assert_eq!(tracer.ask("put 5"), "5");
    assert_eq!(tracer.ask("settled"), "5");
    home.stop();
    assert_eq!(tracer.ask("put 5"), "10");
    assert!(home.launch(&["true"]).status().unwrap().success());
    let ring = tracer.ring();
    assert_eq!(tracer.ask("again"), ring);
    assert_eq!(tracer.ask("settled"), "10");
    home.stop();
    assert_eq!(home.spooled(&ring), (1..=10).collect());
}

#[test]
fn after_an_upgrade_the_newest_takes_over_at_the_next_start_and_nothing_is_lost() {
    let home = Home::new();
    let mut first = home.tracer();
    let mut second = home.spawn_tracer(&[]);
    second.ring();
    let ring = first.ring();
    let old = home.collector();
    // An older program does not take over.
    let older = home.installed("2.9.9");
    let mut late = home.spawn_tracer_of(&older, &[]);
    late.ring();
    wait_until("two in line", || home.lined_up() == 2);
    assert_eq!(home.collector(), old);

    first.say("put 20000");
    let newer = home.installed("3.0.1");
    let mut upgraded = home.spawn_tracer_of(&newer, &[]);
    assert_eq!(first.hear(), "20000");
    home.wait_for_another(old);
    let collector = home.collector();
    assert_eq!(program_of(collector), newer);
    assert_eq!(program_of(home.holder()), newer);
    assert!(home.log().contains("handing over to a newer version"));
    assert_eq!(upgraded.ask("put 3"), "3");
    assert_eq!(first.ask("put 10"), "20010");
    assert_eq!(first.ask("settled"), "20010");
    assert_eq!(upgraded.ask("settled"), "3");
    assert_eq!(
        (first.ring(), second.ask("again")),
        (ring.clone(), second.ring())
    );

    // Killed, it is started again from what is installed now, and its watchdog's end is outlived as ever.
    end(home.collector(), Signal::SIGKILL);
    home.wait_for_another(collector);
    assert_eq!(program_of(home.collector()), newer);
    end(home.holder(), Signal::SIGKILL);
    assert_eq!(first.ask("put 10"), "20020");
    assert_eq!(first.ask("settled"), "20020");
    wait_until("three in line", || home.lined_up() == 3);
    home.stop();
    wait_until("no watchdog", || home.watchdogs() == 0);
    let all = home.all_spans();
    let of = |ring: &str| -> Vec<u64> {
        let spans = all.iter().filter(|(of, _, _)| of == ring);
        spans.map(|(_, number, _)| *number).collect()
    };
    // Each once, in order, over four collectors of two versions.
    assert_eq!(of(&ring), (1..=20_020).collect::<Vec<_>>());
    assert_eq!(of(&upgraded.ring()), [1, 2, 3]);
}

#[test]
fn a_short_command_of_a_new_version_is_reason_enough() {
    let home = Home::new();
    let mut tracer = home.spawn_tracer(&[("LICENCE", "s3cret")]);
    tracer.ring();
    let old = home.collector();
    let newer = home.installed("3.0.1");
    assert!(
        home.launch_with(&newer, &["true"])
            .status()
            .unwrap()
            .success()
    );
    home.wait_for_another(old);
    assert_eq!(program_of(home.collector()), newer);
    assert_eq!(tracer.ask("put 7"), "7");
    assert_eq!(tracer.ask("settled"), "7");
    // What the instance was started with stays its own, whoever holds it.
    let options = home.request(&Message::new("options")).unwrap();
    assert_eq!(options.value("license"), Some("(set)"));
    // One of the same version leaves the line at once.
    assert!(
        home.launch_with(&newer, &["true"])
            .status()
            .unwrap()
            .success()
    );
    wait_until("two watchdogs", || home.watchdogs() == 2);
}

#[test]
fn an_upgrade_while_the_launch_that_holds_the_name_is_over() {
    let home = Home::new();
    let first = home.tracer();
    let mut second = home.spawn_tracer(&[]);
    let ring = second.ring();
    assert_eq!(second.ask("put 5"), "5");
    drop(first);
    let (holder, collector) = (home.holder(), home.collector());
    let mut third = home.spawn_tracer_of(&home.installed("3.1.0"), &[]);
    home.wait_for_another(collector);
    wait_until("the old holder's end", || {
        fs::read_link(format!("/proc/{holder}/exe")).is_err()
    });
    assert_eq!(
        (second.ask("put 5"), third.ask("put 1")),
        ("10".into(), "1".into())
    );
    assert_eq!(second.ask("settled"), "10");
    home.stop();
    assert_eq!(home.spooled(&ring), (1..=10).collect());
}

// --- the scene

struct Home {
    directory: tempfile::TempDir,
    name: String,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = instance::name(directory.path());
        let home = Self { directory, name };
        home.conf("");
        home
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Options of the story, and no server anywhere.
    fn conf(&self, text: &str) {
        let none = self.path().join("none");
        let quiet = format!(
            "local_server=false\nlocal_server_data_dir={}\n",
            none.display()
        );
        fs::write(self.path().join("whatap.conf"), quiet + text).unwrap();
    }

    /// The same programs, installed elsewhere and of another version.
    fn installed(&self, version: &str) -> PathBuf {
        let copy = self.path().join(format!("programs@{version}"));
        fs::copy(program(), &copy).unwrap();
        copy.canonicalize().unwrap()
    }

    fn launch(&self, command: &[&str]) -> Command {
        self.launch_with(&program(), command)
    }

    fn launch_with(&self, program: &Path, command: &[&str]) -> Command {
        let mut launcher = Command::new(program);
        launcher.arg("launch").arg(self.path()).args(command);
        launcher
    }

    /// A launched tracer, attached.
    fn tracer(&self) -> Tracer {
        let mut tracer = self.spawn_tracer(&[]);
        tracer.ring();
        tracer
    }

    fn spawn_tracer(&self, environment: &[(&str, &str)]) -> Tracer {
        self.spawn_tracer_of(&program(), environment)
    }

    fn spawn_tracer_of(&self, program: &Path, environment: &[(&str, &str)]) -> Tracer {
        let script = r#"echo "$3"; exec "$1" tracer "$2""#;
        let path = program.to_str().unwrap();
        let words = ["sh", "-c", script, "sh", path, "{name}", "{token}"];
        let mut command = self.launch_with(program, &words);
        command.envs(environment.iter().copied());
        let mut tracer = Tracer::over(command);
        tracer.token = tracer.hear();
        tracer
    }

    /// A process of the application that is no launch of its own.
    fn attach_only(&self) -> Tracer {
        let mut command = Command::new(program());
        command.args(["tracer", &self.name]);
        Tracer::over(command)
    }

    fn request(&self, message: &Message) -> Option<Message> {
        let connection = instance::reach(&self.name).ok()?;
        instance::send(connection.as_fd(), message, &[]).ok()?;
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            match instance::receive(connection.as_fd()).ok()? {
                Received::Message(message, _) => return Some(message),
                Received::Closed => return None,
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }

    fn status(&self) -> Message {
        wait_for("a status", || self.request(&Message::new("status")))
    }

    fn collector(&self) -> u64 {
        self.status().number("pid").unwrap()
    }

    fn holder(&self) -> u64 {
        self.status().number("watch_pid").unwrap()
    }

    fn wait_for_another(&self, collector: u64) {
        wait_until("another collector", || self.collector() != collector);
    }

    fn watchdogs(&self) -> usize {
        self.watchdog_directories().len()
    }

    /// Watchdogs that are connected to the holder: with one socket.
    fn lined_up(&self) -> usize {
        let sockets = |directory: &PathBuf| {
            let open = fs::read_dir(directory.join("fd"))
                .into_iter()
                .flatten()
                .flatten();
            open.filter(|fd| {
                fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
            })
            .count()
        };
        self.watchdog_directories()
            .iter()
            .filter(|directory| sockets(directory) == 1)
            .count()
    }

    fn watchdog_directories(&self) -> Vec<PathBuf> {
        let home = format!("_home={};", self.path().display());
        let processes = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .map(|entry| entry.path());
        let ours = processes.filter(|directory| {
            let is_watchdog = fs::read_to_string(directory.join("comm"))
                .is_ok_and(|comm| comm.trim() == "whatap_watch");
            let environment = fs::read(directory.join("environ")).unwrap_or_default();
            is_watchdog && String::from_utf8_lossy(&environment).contains(&home)
        });
        ours.collect()
    }

    /// Asks the instance to stop and waits until it says that it has.
    fn stop(&self) {
        let Ok(connection) = instance::reach(&self.name) else {
            return;
        };
        instance::send(connection.as_fd(), &Message::new("stop"), &[]).unwrap();
        wait_until("the stop", || {
            matches!(
                instance::receive(connection.as_fd()),
                Ok(Received::Closed) | Err(_)
            )
        });
    }

    fn log(&self) -> String {
        let files = fs::read_dir(self.path().join("logs"))
            .into_iter()
            .flatten()
            .flatten();
        files
            .map(|file| fs::read_to_string(file.path()).unwrap_or_default())
            .collect()
    }

    /// Ring, sequence number and whether it was aborted, of everything in the spool.
    fn all_spans(&self) -> Vec<(String, u64, bool)> {
        let now = Now {
            wall_us: 0,
            mono_ms: 0,
        };
        let (mut spool, adopted, _) =
            spool::open_all(&self.path().join("spool"), Limits::default(), now);
        assert!(adopted.is_empty());
        let mut found = Vec::new();
        while let Some(batch) = spool.batch(u64::MAX, 1 << 20) {
            let request = ExportTraceServiceRequest::decode(batch.bodies[0].as_slice()).unwrap();
            let spans = request
                .resource_spans
                .into_iter()
                .flat_map(|r| r.scope_spans)
                .flat_map(|s| s.spans);
            for span in spans {
                let value = |key: &str| {
                    let pair = span.attributes.iter().find(|a| a.key == key)?;
                    pair.value.clone()?.value
                };
                let Some(Value::String(ring)) = value("whatap.ring") else {
                    continue;
                };
                let seq = match value("whatap.seq") {
                    Some(Value::Int(seq)) => seq as u64,
                    _ => 0,
                };
                found.push((ring, seq, value("whatap.aborted").is_some()));
            }
            spool.settle(&batch, 0);
        }
        found
    }

    fn spans(&self, ring: &str) -> Vec<(u64, bool)> {
        let all = self.all_spans().into_iter();
        all.filter(|(of, _, _)| of == ring)
            .map(|(_, seq, aborted)| (seq, aborted))
            .collect()
    }

    /// Sequence numbers of this ring in the spool; none may be there twice.
    fn spooled(&self, ring: &str) -> HashSet<u64> {
        let spans = self.spans(ring);
        let numbers: HashSet<u64> = spans.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(numbers.len(), spans.len(), "duplicates");
        numbers
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.stop();
        }
        eprintln!("{}", self.log());
        // Nothing may stay behind, whatever state it is in.
        for key in ["watch_pid", "pid"] {
            let pid = self
                .request(&Message::new("status"))
                .and_then(|status| status.number(key));
            if let Some(pid) = pid {
                let _gone = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
        }
    }
}

/// A fake tracer: one line in, one line out.
struct Tracer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    token: String,
}

impl Tracer {
    fn over(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            input: child.stdin.take(),
            child,
            output,
            token: String::new(),
        }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    fn ring(&mut self) -> String {
        self.ask("ring")
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.input = None;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _gone = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Watchdog, collector, launcher and tracer for these tests.
fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_instance-under-test"))
}

fn program_of(pid: u64) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

fn end(pid: u64, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

fn descriptors(pid: u64) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
