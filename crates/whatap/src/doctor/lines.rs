//! Lines of our other programs, which speak English only, in Korean: what the doctor quotes of them.

/// As they are printed, `{}` for what varies, and their Korean. Of several that fit the first counts.
const LINES: &[(&str, &str)] = &[
    // Configuration.
    (
        "unknown option, ignored; did you mean `{}`?",
        "알 수 없는 옵션이라 무시합니다. `{}` 옵션입니까?",
    ),
    ("unknown option, ignored", "알 수 없는 옵션이라 무시합니다"),
    (
        "no option has this environment variable; did you mean `{}`?",
        "이런 환경 변수의 옵션은 없습니다. `{}` 변수입니까?",
    ),
    (
        "no option has this environment variable",
        "이런 환경 변수의 옵션은 없습니다",
    ),
    (
        "set again in line {}, which counts",
        "{}번째 줄에 다시 나오며 그 값을 사용합니다",
    ),
    (
        "line ignored: it has no `=`",
        "`=`가 없어 이 줄을 무시합니다",
    ),
    (
        "line ignored: it has no key before `=`",
        "`=` 앞에 키가 없어 이 줄을 무시합니다",
    ),
    (
        "line ignored: it is not UTF-8",
        "UTF-8이 아니어서 이 줄을 무시합니다",
    ),
    (
        "` #` starts no comment here; it is part of the value",
        "여기서 ` #`은 주석이 아니라 값의 일부입니다",
    ),
    (
        "{} is neither true nor false; using `{}`",
        "{}: 참도 거짓도 아니어서 `{}` 값을 사용합니다",
    ),
    (
        "{} is not a whole number; using `{}`",
        "{}: 정수가 아니어서 `{}` 값을 사용합니다",
    ),
    (
        "{} is not a number; using `{}`",
        "{}: 수가 아니어서 `{}` 값을 사용합니다",
    ),
    (
        "{} is not between {} and {}; using `{}`",
        "{}: {}에서 {} 사이가 아니어서 `{}` 값을 사용합니다",
    ),
    (
        "{} is none of {}; using `{}`",
        "{}: 다음 중 하나가 아닙니다: {}. `{}` 값을 사용합니다",
    ),
    (
        "longer than {} characters; using `{}`",
        "{}자보다 길어 `{}` 값을 사용합니다",
    ),
    ("`{}` is a placeholder", "`{}`: 템플릿의 자리 표시자입니다"),
    (
        "is not a project access key (a placeholder?)",
        "프로젝트 액세스 키가 아닙니다 (템플릿의 값입니까?)",
    ),
    (
        "is not a project access key (three groups joined with `-`)",
        "프로젝트 액세스 키가 아닙니다 (`-`로 이은 세 묶음이어야 합니다)",
    ),
    (
        "is missing; the server will not take anything without it",
        "값이 없습니다. 라이선스가 없으면 서버가 아무것도 받지 않습니다",
    ),
    (
        "cannot be read: {}; going on without it",
        "읽을 수 없어 무시합니다: {}",
    ),
    (
        "ignored: a secret does not belong into a file that is committed; put it into whatap.conf or the environment",
        "커밋되는 파일에는 비밀 값을 둘 수 없어 무시합니다. whatap.conf나 환경 변수에 두십시오",
    ),
    (
        "ignored: it lies in the working directory and others than you and root own it or may write it",
        "작업 디렉터리에 있으며 다른 사용자가 소유하거나 쓸 수 있어 무시합니다",
    ),
    (
        "not used as the home: others own it or may write to it; name another one with WHATAP_HOME",
        "다른 사용자가 소유하거나 쓸 수 있어 홈으로 사용하지 않습니다. WHATAP_HOME으로 다른 홈을 지정하십시오",
    ),
    (
        "{} does not exist; going on without it",
        "{} 파일이 없어 읽지 않습니다",
    ),
    (
        "ignored: its value is not UTF-8",
        "값이 UTF-8이 아니어서 무시합니다",
    ),
    (
        "{} cannot be used for logs; they go elsewhere",
        "{} 디렉터리는 로그에 쓸 수 없어 다른 곳을 사용합니다",
    ),
    (
        "ignored: `tool.whatap` is not a table",
        "`tool.whatap`이 테이블이 아니어서 무시합니다",
    ),
    // The way to the server.
    ("nothing to send yet", "아직 보낼 것이 없습니다"),
    ("connected to {}", "{} 서버에 연결됨"),
    (
        "data waits: no local server runs; `whatap-server` starts one",
        "로컬 서버가 없어 데이터를 보관 중입니다. `whatap-server`로 시작합니다",
    ),
    (
        "data waits: no licence; {}",
        "라이선스가 없어 데이터를 보관 중입니다",
    ),
    ("data waits: {}", "데이터를 보관 중입니다: {}"),
    (
        "{}: the name does not resolve; trying on",
        "{}: 이름을 찾을 수 없어 계속 시도합니다",
    ),
    (
        "{}: connection refused; trying on",
        "{}: 연결이 거부되어 계속 시도합니다",
    ),
    (
        "{}: no answer in time; trying on",
        "{}: 제시간에 응답이 없어 계속 시도합니다",
    ),
    (
        "{}: the connection broke; trying on",
        "{}: 연결이 끊겨 계속 시도합니다",
    ),
    (
        "{} does not know this licence; see `whatap-server project list`",
        "{} 서버가 이 라이선스를 알지 못합니다. `whatap-server project list`를 확인하십시오",
    ),
    (
        "{} asks to send later ({}); trying on",
        "{} 서버가 나중에 보내라고 합니다 ({}). 계속 시도합니다",
    ),
    // Our programs, the command, and the system's reasons.
    (
        "built for another machine",
        "다른 종류의 컴퓨터용 프로그램입니다",
    ),
    ("not a program", "프로그램이 아닙니다"),
    (
        "permission denied: it is not executable",
        "실행 권한이 없습니다",
    ),
    ("permission denied", "권한이 없습니다"),
    ("not found", "찾을 수 없습니다"),
    ("no such file or directory", "파일이나 디렉터리가 없습니다"),
    ("is a directory", "디렉터리입니다"),
];

/// The value with the line in it, if there is one, in Korean. What stands before the line is kept: file, line and key.
pub(super) fn in_korean(value: &str) -> Option<String> {
    LINES.iter().find_map(|(english, korean)| {
        let (start, parts) = fit(value, english)?;
        let mut parts = parts.into_iter();
        let mut pieces = korean.split("{}");
        let mut text = value[..start].to_owned() + pieces.next()?;
        for piece in pieces {
            text.push_str(parts.next()?);
            text.push_str(piece);
        }
        Some(text)
    })
}

/// Where the line begins in the value, and what stands in its places; it must reach to the value's end.
fn fit<'a>(value: &'a str, line: &str) -> Option<(usize, Vec<&'a str>)> {
    let mut pieces = line.split("{}");
    let first = pieces.next()?;
    // A line that begins with what varies begins behind the last `key: `, or at the value's begin.
    let start = if first.is_empty() {
        let second = line.split("{}").nth(1)?;
        let found = value.find(second)?;
        value[..found].rfind(": ").map_or(0, |colon| colon + 2)
    } else {
        boundary(value, first)?
    };
    let mut rest = &value[start + first.len()..];
    let mut parts = Vec::new();
    for piece in pieces {
        let at = match piece {
            "" => rest.len(),
            piece => rest.find(piece)?,
        };
        parts.push(&rest[..at]);
        rest = &rest[at + piece.len()..];
    }
    rest.is_empty().then_some((start, parts))
}

/// Where this text begins, at the value's begin or behind `: `.
fn boundary(value: &str, text: &str) -> Option<usize> {
    let behind = |at: &usize| *at == 0 || value[..*at].ends_with(": ");
    value.match_indices(text).map(|(at, _)| at).find(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_is_kept_and_the_rest_is_translated() {
        for (english, korean) in [
            (
                "/h/whatap.conf:1: appname: unknown option, ignored; did you mean `app_name`?",
                "/h/whatap.conf:1: appname: 알 수 없는 옵션이라 무시합니다. `app_name` 옵션입니까?",
            ),
            (
                "/h/whatap.conf:8: debug: `maybe # x` is neither true nor false; using `false`",
                "/h/whatap.conf:8: debug: `maybe # x`: 참도 거짓도 아니어서 `false` 값을 사용합니다",
            ),
            (
                "127.0.0.1:1: connection refused; trying on",
                "127.0.0.1:1: 연결이 거부되어 계속 시도합니다",
            ),
            ("connected to [::1]:6600", "[::1]:6600 서버에 연결됨"),
        ] {
            assert_eq!(in_korean(english).as_deref(), Some(korean));
        }
        assert_eq!(in_korean("/srv/not found/app"), None);
        assert_eq!(in_korean(""), None);
    }

    #[test]
    fn both_languages_have_the_same_places() {
        for (english, korean) in LINES {
            let places = |text: &str| text.matches("{}").count();
            let dropped = english.starts_with("data waits: no licence");
            assert!(places(english) == places(korean) || dropped, "{english}");
        }
    }
}
