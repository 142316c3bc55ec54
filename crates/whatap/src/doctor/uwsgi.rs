//! uWSGI's own settings, as far as they decide whether the tracer is loaded.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The setting that keeps the tracer out, from the command line or the ini files that it names.
pub(super) fn obstacle(argv: &[OsString]) -> Option<&'static str> {
    let words: Vec<&str> = argv
        .iter()
        .skip(1)
        .filter_map(|word| word.to_str())
        .collect();
    let of_command = words.iter().filter_map(|word| word.strip_prefix("--"));
    let mut settings: Vec<String> = of_command.map(str::to_owned).collect();
    settings.extend(ini_files(argv).iter().flat_map(|file| read(file)));
    settings.iter().find_map(|setting| {
        let (name, value) = setting.split_once('=').unwrap_or((setting, "true"));
        let is_on = !matches!(value.trim(), "false" | "0" | "no");
        match name.trim() {
            "no-site" if is_on => Some("no-site"),
            "unenv" if value.trim() == "PYTHONPATH" => Some("unenv"),
            "env" if value.trim().starts_with("PYTHONPATH=") => Some("env"),
            _ => None,
        }
    })
}

/// The ini files that the command line names.
pub(super) fn ini_files(argv: &[OsString]) -> Vec<PathBuf> {
    let words: Vec<&str> = argv.iter().filter_map(|word| word.to_str()).collect();
    let named = words
        .iter()
        .skip(1)
        .map(|word| word.trim_start_matches("--ini="));
    // Behind a colon is a section of the file; or it is an address, which uWSGI fetches itself.
    let files = named.map(|word| word.split_once(':').map_or(word, |(file, _)| file));
    files
        .filter(|file| file.ends_with(".ini") && !file.contains('='))
        .map(PathBuf::from)
        .collect()
}

fn read(ini: &Path) -> Vec<String> {
    let text = fs::read_to_string(ini).unwrap_or_default();
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.starts_with(['#', ';', '[']))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_us_out_is_found_wherever_it_stands() {
        let temp = tempfile::tempdir().unwrap();
        let ini = temp.path().join("app.ini");
        let found = |words: &str, text: &str| {
            fs::write(&ini, text).unwrap();
            let line = format!("uwsgi {words}").replace("INI", ini.to_str().unwrap());
            let argv: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            obstacle(&argv)
        };
        assert_eq!(found("--ini INI", "[uwsgi]\nmaster = true\n"), None);
        assert_eq!(
            found("--ini INI", "[uwsgi]\nno-site = true\n"),
            Some("no-site")
        );
        assert_eq!(
            found("INI", "no-site=false\nenv = PYTHONPATH=/x\n"),
            Some("env")
        );
        assert_eq!(found("--no-site", ""), Some("no-site"));
        let files = |line: &str| {
            let argv: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            ini_files(&argv)
        };
        assert_eq!(files("uwsgi --ini a.ini"), [Path::new("a.ini")]);
        assert_eq!(files("uwsgi b.ini:dev --ini=c.ini").len(), 2);
        assert!(files("uwsgi --ini http://h/x.ini --http :8080 --x=y.ini").is_empty());
    }
}
