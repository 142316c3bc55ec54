//! What the programs have in common; stop-agent and start-batch-agent. Tests named `lNN_` are the numbered checks of the suite.

mod scene;

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scene::Scene;

#[test]
fn every_program_helps_and_refuses_what_it_does_not_know() {
    let scene = Scene::new();
    for (program, usage) in [
        ("whatap-setting-config", 2),
        ("whatap-llm-setting-config", 2),
        ("whatap-stop-agent", 2),
        ("whatap-start-batch-agent", 2),
        ("whatap-doctor", 64),
    ] {
        for flag in ["--help", "-h", "--version", "-V"] {
            let seen = scene.run(&[program, flag]).status(0).stderr("");
            assert!(seen.stdout.contains(program), "{}", seen.stdout);
        }
        scene
            .run(&[program, "--bogus"])
            .status(usage)
            .stdout("")
            .complains(&[program, "--bogus"]);
    }
    assert_eq!(
        fs::read_dir(scene.home()).unwrap().count(),
        0,
        "none of this has a side effect"
    );
}

#[test]
fn every_program_gives_completions_and_a_manual_page() {
    let scene = Scene::new();
    for (program, option) in [
        ("whatap-start-agent", "dry-run"),
        ("whatap-setting-config", "license-file"),
        ("whatap-llm-setting-config", "license-file"),
        ("whatap-stop-agent", "force"),
        ("whatap-start-batch-agent", "home"),
        ("whatap-doctor", "json"),
        ("whatap-server", "data-dir"),
    ] {
        for shell in ["bash", "zsh", "fish"] {
            let seen = scene.run(&[program, "--completions", shell]).status(0);
            let text = seen.stderr("").stdout;
            assert!(text.contains(option), "{program} {shell}: {text}");
        }
        let help = scene.run(&[program, "--help"]).status(0).stdout;
        assert!(help.contains("--completions SHELL prints"), "{help}");
        let page = scene.run(&[program, "--man"]).status(0).stderr("").stdout;
        assert!(page.contains(&format!(".TH {program} 1")), "{page}");
        assert!(page.contains(&option.replace('-', "\\-")), "{page}");
        let mistake = scene.run(&[program, "--completions", "cmd"]).stdout("");
        mistake.complains(&[program, "cmd", "bash"]);
    }
}

#[test]
fn an_agent_that_does_not_answer_is_told_from_one_that_ends_and_can_be_killed() {
    let scene = Scene::new().conf("agent_linger_sec=60\n");
    scene.start(&["true"]).status(0);
    scene.wait_for("collector", || scene.processes("whatap_python").len() == 1);
    let collector = scene.processes("whatap_python")[0];
    let signal = |signal| kill(Pid::from_raw(i32::try_from(collector).unwrap()), signal).unwrap();
    signal(Signal::SIGSTOP);
    let seen = scene
        .run(&["whatap-stop-agent", "--timeout", "1"])
        .status(1);
    seen.complains(&["cannot stop", &scene.home().display().to_string()]);
    assert_eq!(scene.processes("whatap_python"), [collector]);
    scene
        .run(&["whatap-stop-agent", "--timeout", "1", "--force"])
        .status(0);
    scene.wait_for("end", || {
        scene.processes("whatap_python").is_empty() && scene.processes("whatap_watch").is_empty()
    });
    scene.run(&["whatap-stop-agent"]).status(3);
}

#[test]
fn the_old_spelling_of_the_batch_home_counts_with_a_warning() {
    let scene = Scene::new();
    let home = scene.home();
    let scene = scene
        .without("WHATAP_HOME")
        .env("WHATAP_BATCH_HOME", home.clone());
    scene
        .run(&["whatap-start-batch-agent"])
        .status(0)
        .stdout(&format!("started {}\n", home.display()))
        .complains(&["WHATAP_BATCH_HOME", "WHATAP_HOME_BATCH"]);
    scene.run(&["whatap-stop-agent", "--batch"]).status(0);
}

#[test]
fn without_a_batch_home_the_ordinary_one_counts() {
    let scene = Scene::new();
    let line = format!("started {}\n", scene.home().display());
    scene
        .run(&["whatap-start-batch-agent"])
        .status(0)
        .stdout(&line);
    scene.run(&["whatap-stop-agent", "--batch"]).status(0);
}

#[test]
fn a_batch_agent_that_cannot_start_says_why() {
    let scene = Scene::new().env("WHATAP_HOME_BATCH", "/nonexistent/home");
    let seen = scene.run(&["whatap-start-batch-agent"]).status(1);
    seen.stderr("whatap-start-batch-agent: home /nonexistent/home does not exist\n");
    let scene = Scene::new().conf("enabled=false\n");
    let seen = scene.run(&["whatap-start-batch-agent"]).status(1);
    seen.complains(&["enabled=false"]);
}

#[test]
fn seconds_are_whole_numbers_and_the_limits_are_told() {
    let scene = Scene::new();
    for (words, limits) in [
        (["whatap-stop-agent", "--timeout", "0.5"], "from 0 to 3600"),
        (["whatap-stop-agent", "--timeout", "3601"], "from 0 to 3600"),
        (["whatap-doctor", "--live", "0"], "from 1 to 600"),
    ] {
        scene
            .run(&words)
            .complains(&[words[2], "whole number", limits]);
    }
}

#[test]
fn l18_stopping_needs_no_other_program() {
    let scene = Scene::new();
    let bare = |scene: &Scene| {
        scene
            .command(&["whatap-stop-agent"])
            .env("PATH", "/nonexistent")
            .status()
            .unwrap()
            .code()
    };
    assert_eq!(bare(&scene), Some(3));
    scene.start(&["true"]).status(0);
    assert_eq!(bare(&scene), Some(0));
    assert_eq!(bare(&scene), Some(3));
}

#[test]
fn one_home_is_stopped_and_the_other_runs_on() {
    let (first, second) = (Scene::new(), Scene::new());
    first.start(&["true"]).status(0);
    second.start(&["true"]).status(0);
    first.run(&["whatap-stop-agent"]).status(0);
    first
        .run(&["whatap-stop-agent"])
        .status(3)
        .complains(&["none runs for"]);
    second.run(&["whatap-stop-agent"]).status(0);
}

#[test]
fn l28_the_batch_agent_starts_and_stays() {
    let scene = Scene::new();
    let home = scene.home();
    let scene = scene
        .without("WHATAP_HOME")
        .env("WHATAP_HOME_BATCH", home.clone());
    scene
        .run(&["whatap-start-batch-agent"])
        .status(0)
        .stdout(&format!("started {}\n", home.display()));
    scene
        .run(&["whatap-start-batch-agent"])
        .status(0)
        .stdout(&format!("runs already {}\n", home.display()));
    // Longer than the file lets an agent without applications live.
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    scene.run(&["whatap-stop-agent", "--batch"]).status(0);
}

#[test]
fn l08_users_do_not_meet_each_others_agents() {
    // Needs root, who can be somebody else.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    use std::os::unix::process::CommandExt as _;
    let scenes = [(12_001, Scene::new()), (12_002, Scene::new())];
    let ours = |uid: u32, scene: &Scene, words: &[&str]| {
        let mut command = scene.command(words);
        command.uid(uid).gid(uid).env("HOME", scene.home());
        scene::Did::of(words.join(" "), command.output().unwrap())
    };
    for (uid, scene) in &scenes {
        for dir in [scene.root(), scene.home()] {
            std::os::unix::fs::chown(dir, Some(*uid), Some(*uid)).unwrap();
        }
        ours(*uid, scene, &["whatap-start-agent", "true"])
            .status(0)
            .stderr("");
    }
    let (first, second) = (&scenes[0], &scenes[1]);
    ours(first.0, &first.1, &["whatap-stop-agent", "--all"]).status(0);
    ours(first.0, &first.1, &["whatap-stop-agent"]).status(3);
    ours(second.0, &second.1, &["whatap-stop-agent"]).status(0);
}

#[test]
fn an_agent_without_applications_ends_by_itself() {
    let scene = Scene::new().conf("agent_linger_sec=1\n");
    scene.start(&["true"]).status(0);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let runs = |scene: &Scene| {
        let seen = scene.run(&["whatap-doctor"]);
        !seen.stdout.contains("does not run for this home")
    };
    while runs(&scene) {
        assert!(std::time::Instant::now() < deadline, "it still runs");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[test]
fn a_batch_agent_stays_though_an_applications_agent_was_there_first() {
    let scene = Scene::new().conf("agent_linger_sec=1\n");
    let home = scene.home().display().to_string();
    scene.start(&["true"]).status(0);
    let batch = || scene.run(&["whatap-start-batch-agent"]).status(0).stdout;
    assert_eq!(batch(), format!("runs already {home}\n"));
    scene.wait_for("watchdog in line", || {
        scene.processes("whatap_watch").len() == 2
    });
    assert_eq!(batch(), format!("runs already {home}\n"));
    // The first collector ends for want of applications, and the next one does not.
    let first = scene.processes("whatap_python");
    scene.wait_for("the batch agent's collector", || {
        let now = scene.processes("whatap_python");
        now.len() == 1 && now != first
    });
    let second = scene.processes("whatap_python");
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    assert_eq!(scene.processes("whatap_python"), second);
    assert_eq!(batch(), format!("runs already {home}\n"));
    scene.run(&["whatap-stop-agent"]).status(0);
    scene.wait_for("end", || scene.processes("whatap_watch").is_empty());
}
