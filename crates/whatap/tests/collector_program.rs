//! `whatap_python` by hand, and as a tracer without a launcher calls it.

mod scene;

use scene::{Did, Scene};
use std::process::Stdio;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_whatap_python");
const QUIET: &str = "local_server=false\nlocal_server_data_dir=/nowhere\n";

#[test]
fn it_says_what_it_is() {
    let scene = Scene::new();
    let version = format!("whatap_python {}\n", env!("CARGO_PKG_VERSION"));
    scene
        .run(&[PROGRAM, "--version"])
        .status(0)
        .stdout(&version)
        .stderr("");
    let help = scene.run(&[PROGRAM, "--help"]).status(0).stderr("");
    assert!(help.stdout.contains("--foreground") && help.stdout.contains("--ensure"));
    assert!(!help.stdout.contains("--watch"));
}

#[test]
fn mistakes_are_one_line_and_status_2() {
    let scene = Scene::new();
    scene
        .run(&[PROGRAM, "--frobnicate"])
        .status(2)
        .complains(&["whatap_python: ", "--frobnicate"]);
    scene
        .run(&[PROGRAM])
        .status(2)
        .complains(&["whatap_python: "]);
    scene
        .run(&[PROGRAM, "--ensure", "--foreground"])
        .status(2)
        .complains(&["whatap_python: "]);
    scene
        .run(&[PROGRAM, "--collect"])
        .status(1)
        .complains(&["--watch"]);
    scene
        .run(&[PROGRAM, "--watch"])
        .status(0)
        .stdout("")
        .stderr("");
}

#[test]
fn without_a_launcher_the_same_instance_is_found_or_made() {
    let scene = Scene::new().conf(QUIET);
    let name = |did: &Did| {
        let pair = did
            .stdout
            .trim()
            .split(';')
            .find_map(|pair| pair.strip_prefix("_name="));
        pair.expect("a name").to_owned()
    };
    let first = scene.run(&[PROGRAM, "--ensure"]).status(0).stderr("");
    assert_eq!(first.stdout.lines().count(), 1);
    assert!(first.stdout.starts_with("1;"), "{}", first.stdout);
    let second = scene.run(&[PROGRAM, "--ensure"]).status(0);
    assert_eq!(name(&first), name(&second));
    assert_ne!(first.stdout, second.stdout, "each has a token of its own");
    scene.run(&["whatap-stop-agent"]).status(0);
}

#[test]
fn switched_off_means_that_nothing_is_started() {
    let scene = Scene::new().conf("enabled=false\n");
    scene
        .run(&[PROGRAM, "--ensure"])
        .status(1)
        .stdout("")
        .stderr("");
    scene.run(&["whatap-stop-agent"]).status(3);
}

#[test]
fn a_sidecar_stays_in_the_foreground_until_it_is_ended() {
    let scene = Scene::new().conf(QUIET);
    let mut sidecar = scene.command(&[PROGRAM, "--foreground"]);
    let mut sidecar = sidecar
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !scene
        .run(&["whatap-doctor"])
        .stdout
        .contains(&format!("pid {},", sidecar.id()))
    {
        assert!(Instant::now() < deadline, "no sidecar");
        std::thread::sleep(Duration::from_millis(20));
    }
    scene
        .run(&[PROGRAM, "--foreground"])
        .status(1)
        .complains(&["another collector serves this home"]);
    let pid = nix::unistd::Pid::from_raw(sidecar.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(sidecar.wait().unwrap().success());
}
