//! The other programs: setting-config, stop-agent, start-batch-agent, doctor.

mod scene;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use scene::{LICENCE, Scene};

fn set(scene: &Scene, words: &[&str]) -> scene::Did {
    scene.run(&[&["whatap-setting-config"], words].concat())
}

#[test]
fn every_program_helps_and_refuses_what_it_does_not_know() {
    let scene = Scene::new();
    for (program, usage) in [
        ("whatap-setting-config", 2),
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
fn all_four_settings_are_stored_as_they_are_given() {
    // [L06]
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
fn one_setting_leaves_every_other_byte() {
    // [L29]
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
        &[],
    ] {
        set(&scene, words)
            .status(2)
            .stdout("")
            .complains(&["whatap-setting-config: "]);
    }
    assert_eq!(fs::read_dir(scene.home()).unwrap().count(), 0);
    set(&scene, &["--set", "lisence=x"]).complains(&["did you mean `license`?"]);
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
fn stopping_needs_no_other_program() {
    // [L18]
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
fn the_batch_agent_starts_and_stays() {
    // [L28]
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
fn users_do_not_meet_each_others_agents() {
    // [L08]: needs root, who can be somebody else.
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
