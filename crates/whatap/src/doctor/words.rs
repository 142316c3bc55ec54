//! Every text of the doctor, in every language it speaks. `{0}`, `{1}` … are the values of a finding.

use std::fmt::Display;

use whatap_conf::Env;

use super::lines;
use super::report::Fix;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    English,
    Korean,
}

impl Language {
    /// As the C library chooses: the first of these that is set and not empty.
    pub(super) fn of(env: &Env) -> Self {
        let variables = ["LC_ALL", "LC_MESSAGES", "LANG"];
        let chosen = variables.iter().find_map(|name| env.text(name));
        let chosen = chosen.unwrap_or_default();
        if chosen == "ko" || chosen.starts_with("ko_") || chosen.starts_with("ko.") {
            Self::Korean
        } else {
            Self::English
        }
    }

    pub(super) fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Korean => "ko",
        }
    }
}

/// A text of the catalogue and its values.
#[derive(Clone, Debug)]
pub(super) struct Words {
    say: Say,
    values: Vec<String>,
}

impl Words {
    /// The finding's name for programs: the same in every language.
    pub(super) fn name(&self) -> String {
        let mut name = String::new();
        for c in format!("{:?}", self.say).chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }

    pub(super) fn say(&self) -> Say {
        self.say
    }

    pub(super) fn text(&self, language: Language) -> String {
        let mut text = String::new();
        let mut rest = self.say.plain(language);
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let (number, after) = after.split_once('}').unwrap_or_default();
            let value = number.parse().ok().and_then(|n: usize| self.values.get(n));
            let value = value.map_or("", String::as_str);
            let translated = (language == Language::Korean).then(|| lines::in_korean(value));
            text.push_str(translated.flatten().as_deref().unwrap_or(value));
            rest = after;
        }
        text + rest
    }
}

impl From<Say> for Words {
    fn from(say: Say) -> Self {
        say.with([])
    }
}

impl From<Words> for Fix {
    fn from(words: Words) -> Self {
        Self::Words(words)
    }
}

impl Say {
    pub(super) fn with<const N: usize>(self, values: [&dyn Display; N]) -> Words {
        let values = values.iter().map(ToString::to_string).collect();
        Words { say: self, values }
    }

    /// Itself as what to do.
    pub(super) fn fix(self) -> Fix {
        Fix::Words(self.into())
    }
}

/// One line each: the text's name, English, Korean.
macro_rules! catalogue {
    ($($name:ident: $english:literal, $korean:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Say { $($name),* }

        impl Say {
            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The text with its places still open.
            pub(super) fn plain(self, language: Language) -> &'static str {
                match (self, language) {
                    $((Self::$name, Language::English) => $english,
                      (Self::$name, Language::Korean) => $korean,)*
                }
            }
        }
    };
}

catalogue! {
    MarkGood: "good   ", "정상";
    MarkWarning: "WARNING", "경고";
    MarkFailure: "FAILURE", "실패";
    LabelFix: "fix", "조치";
    LabelOptions: "options that were set or differ in the running agent", "설정했거나 실행 중인 에이전트와 다른 옵션";
    OptionRunning: "the running agent uses {0} ({1})", "실행 중인 에이전트는 {0} 값을 사용합니다 ({1})";
    Sum: "good: {0}, warnings: {1}, failures: {2}", "정상 {0}, 경고 {1}, 실패 {2}";

    HomeGood: "{0} (from {1}), owned by {2}, examined as {3}", "{0} (출처: {1}), 소유자 {2}, 점검 사용자 {3}";
    HomeIsMade: "{0} is made at the first start", "{0} 디렉터리는 처음 시작할 때 만들어집니다";
    HomeMissing: "{0}: {1}; applications run untraced", "{0}: {1}; 애플리케이션은 추적 없이 실행됩니다";
    HomeNotDirectory: "{0} is not a directory; applications run untraced", "{0} 경로가 디렉터리가 아닙니다. 애플리케이션은 추적 없이 실행됩니다";
    HomeNotWritable: "{0} belongs to {1} and {2} cannot write there; logs and unsent data are elsewhere, where a restart of the host may remove them", "{0} 디렉터리의 소유자는 {1}이고 {2} 사용자는 쓸 수 없습니다. 로그와 미전송 데이터는 다른 곳에 있으며 호스트를 다시 시작하면 사라질 수 있습니다";
    HomeReadOnly: "{0} belongs to {1} and {2} cannot write there; logs and spool are in directories that it can write to", "{0} 디렉터리의 소유자는 {1}이고 {2} 사용자는 쓸 수 없습니다. 로그와 스풀은 쓸 수 있는 디렉터리에 있습니다";
    HomeOpen: "others than {1} can write to {0}; nothing in the home is trusted, logs and spool go elsewhere", "{0} 디렉터리에 소유자({1})가 아닌 사용자도 쓸 수 있습니다. 홈을 신뢰하지 않으며 로그와 스풀은 다른 곳에 저장됩니다";
    HomeOfAnother: "{0} belongs to {1}, this is {2}; logs and spool go elsewhere", "{0} 디렉터리의 소유자는 {1}이고 현재 사용자는 {2}입니다. 로그와 스풀은 다른 곳에 저장됩니다";
    HomeUnknown: "{0} cannot be examined", "{0} 경로를 확인할 수 없습니다";
    PlaceGood: "{0}", "{0}";
    PlaceOfAnother: "{0} belongs to {1}, this is {2}; used instead: {3}", "{0} 디렉터리의 소유자는 {1}이고 현재 사용자는 {2}입니다. 대신 {3} 디렉터리를 사용합니다";
    PlaceNotUsed: "{0} cannot be used; used instead: {1}", "{0} 디렉터리를 사용할 수 없어 대신 {1} 디렉터리를 사용합니다";
    FixLogs: "name a directory in WHATAP_LOGS that this user can write to and nobody else can replace", "이 사용자만 쓸 수 있고 다른 사용자가 바꿀 수 없는 디렉터리를 WHATAP_LOGS로 지정하세요";
    SpoolDiskShort: "{0}: less than 5 % or 1 GiB of the disk is free; what the server does not take is not kept there", "{0}: 디스크의 여유 공간이 5% 또는 1GiB보다 적어 서버가 받지 못한 데이터를 보관하지 않습니다";
    FixDiskShort: "make room on that disk, or put the home on another one", "디스크 공간을 확보하거나 홈을 다른 디스크로 옮기세요";
    PlaceNone: "there is no place that is ours alone: {0}", "이 사용자만 쓸 수 있는 위치가 없습니다: {0}";
    FixReadOnly: "that file system is read-only: mount a writable volume on logs and spool of the home, or name another home", "읽기 전용 파일 시스템입니다. 홈의 logs와 spool에 쓸 수 있는 볼륨을 마운트하거나 다른 홈을 지정하세요";
    FixOtherHome: "name a directory with --home or WHATAP_HOME", "--home 또는 WHATAP_HOME으로 디렉터리를 지정하세요";
    FixPlace: "make the home, XDG_RUNTIME_DIR or /tmp writable for this user", "홈, XDG_RUNTIME_DIR, /tmp 중 하나를 이 사용자가 쓸 수 있게 하세요";

    ConfigurationGood: "{0} is good", "{0} 파일에 문제가 없습니다";
    ConfigurationNone: "there is no {0}; defaults and environment count", "{0} 파일이 없어 기본값과 환경 변수를 사용합니다";
    ConfigurationWrong: "{0}", "설정 오류: {0}";
    ConfigurationWritable: "everybody can write to {0}", "모든 사용자가 {0} 파일에 쓸 수 있습니다";
    SwitchedOff: "switched off by `{0}`: nothing is traced", "`{0}` 옵션으로 꺼져 있어 아무것도 추적하지 않습니다";
    LicenceReadable: "{0} holds the license and everybody can read it", "{0} 파일에 라이선스가 있는데 모든 사용자가 읽을 수 있습니다";
    LicenceGood: "{0} names project {1}", "{0} 라이선스는 프로젝트 {1}의 키입니다";
    LicenceLocal: "none configured; the local server has its own", "설정하지 않았습니다. 로컬 서버는 자체 라이선스를 사용합니다";
    LicenceNone: "none configured; this protocol needs none", "설정하지 않았습니다. 이 프로토콜에는 필요 없습니다";
    LicenceWrong: "{0}", "라이선스 오류: {0}";
    LicenceUndecodable: "{0} is not a project access key: it {1}", "{0} 값은 프로젝트 액세스 키가 아닙니다: {1}";
    FixLine: "edit {0}, line {1}", "{0} 파일의 {1}번째 줄을 고치세요";

    TracerGood: "{0}", "{0}";
    TracerOther: "{0} is version {1}, the programs are version {2}", "{0} 버전은 {1}, 프로그램 버전은 {2}입니다";
    TracerNowhere: "there is no place for the tracer: {0}", "트레이서를 둘 위치가 없습니다: {0}";
    FixTracer: "make one of the cache directories writable for this user, or install the package with pip", "캐시 디렉터리 중 하나를 이 사용자가 쓸 수 있게 하거나 pip으로 패키지를 설치하세요";
    ProgramMissing: "{0} is not installed beside {1}", "{0} 프로그램이 {1}과 같은 위치에 설치되어 있지 않습니다";
    ProgramUnusable: "{0} cannot be executed: {1}", "{0} 프로그램을 실행할 수 없습니다: {1}";
    FixInstallAgain: "install the package again: pip install --force-reinstall whatap-python", "패키지를 다시 설치하세요: pip install --force-reinstall whatap-python";
    UpgradeClean: "nothing of other versions is left in the home", "홈에 다른 버전의 파일이 남아 있지 않습니다";
    UpgradeLeft: "left in the home by other versions, and not used: {0}", "다른 버전이 홈에 남긴, 사용하지 않는 파일: {0}";
    UpgradeClients: "{0} applications run with the tracer that they were started with", "애플리케이션 {0}개가 시작할 때의 트레이서로 실행 중입니다";
    FixRestartApplications: "restart them when it suits; until then they are traced as before", "편한 때에 다시 시작하세요. 그때까지는 이전과 같이 추적됩니다";

    AgentNone: "does not run for this home; whatap-start-agent starts it", "이 홈에서 실행 중이 아닙니다. whatap-start-agent가 시작합니다";
    AgentRuns: "pid {0}, version {1}, user {2}; {3} clients, {4} rings, {5} bytes unsent; {6}", "pid {0}, 버전 {1}, 사용자 {2}; 클라이언트 {3}, 링 {4}, 미전송 {5}바이트; {6}";
    AgentOtherVersion: "the running agent is version {0}, installed is {1}", "실행 중인 에이전트 버전은 {0}, 설치된 버전은 {1}입니다";
    AgentRefuses: "refuses to tell its state ({0})", "상태를 알려 주지 않습니다 ({0})";
    AgentSilent: "runs and does not answer: {0}", "실행 중이지만 응답하지 않습니다: {0}";
    UdpGood: "the agent has UDP port {0}", "에이전트가 UDP 포트 {0}을 사용하고 있습니다";
    UdpTaken: "UDP port {0} is taken by a process of {1}; tracers of other versions do not reach the agent", "UDP 포트 {0}을 {1} 사용자의 프로세스가 쓰고 있어 다른 버전의 트레이서가 에이전트에 연결할 수 없습니다";
    UdpNotBound: "nobody has UDP port {0}: this version does not take data there", "UDP 포트 {0}이 열려 있지 않습니다. 이 버전은 그 포트로 데이터를 받지 않습니다";
    UdpFree: "UDP port {0} is free", "UDP 포트 {0}은 비어 있습니다";

    ServerGood: "{0} answers, knows the license, version {1}", "{0} 서버가 응답하고 라이선스를 확인했습니다. 버전 {1}";
    ServerTakesConnections: "{0} takes connections", "{0} 서버에 연결할 수 있습니다";
    ServerNotAsked: "{0} takes connections, and is not asked more: there is no valid license to prove", "{0} 서버에 연결할 수 있으나 유효한 라이선스가 없어 더 확인하지 않았습니다";
    ServerUnknown: "not asked: {0} cannot be read", "{0} 파일을 읽을 수 없어 확인하지 않았습니다";
    ServerLocalStarts: "the local server does not run; the next start starts it", "로컬 서버가 실행 중이 아닙니다. 다음 시작 때 함께 시작됩니다";
    ServerLocalNone: "no server is configured and the local one does not run; data waits in the spool", "서버가 설정되지 않았고 로컬 서버도 실행 중이 아닙니다. 데이터는 스풀에 보관됩니다";
    ServerUnresolved: "{0}: the name does not resolve; data waits in the spool", "{0}: 이름을 찾을 수 없습니다. 데이터는 스풀에 보관됩니다";
    ServerRefused: "{0}: the connection is refused; data waits in the spool", "{0}: 연결이 거부되었습니다. 데이터는 스풀에 보관됩니다";
    ServerSilent: "{0}: no answer in time; data waits in the spool", "{0}: 제시간에 응답이 없습니다. 데이터는 스풀에 보관됩니다";
    ServerUnknownLicence: "{0} does not know this license; data waits in the spool", "{0} 서버가 이 라이선스를 알지 못합니다. 데이터는 스풀에 보관됩니다";
    ServerFalse: "{0} cannot prove that it knows the license; nothing is sent to it", "{0} 서버가 라이선스를 안다는 것을 증명하지 못해 아무것도 보내지 않습니다";
    ServerForeign: "{0} is no whatap-server: {1}; nothing is sent to it", "{0} 서버는 whatap-server가 아닙니다: {1}; 아무것도 보내지 않습니다";
    ServerInTheClear: "{0} is not this host and encryption is not built yet; nothing is sent", "{0} 서버는 다른 호스트에 있고 암호화가 아직 지원되지 않아 아무것도 보내지 않습니다";
    ServerNowhere: "nothing is sent: {0}", "아무것도 보내지 않습니다: {0}";
    ServerTrouble: "{0}", "{0}";
    FixServerRefused: "start whatap-server there, or correct whatap.server.host and whatap.server.port", "그 호스트에서 whatap-server를 시작하거나 whatap.server.host와 whatap.server.port를 고치세요";
    FixServerSilent: "look for a firewall between here and the server, or correct whatap.server.host", "서버까지의 방화벽을 확인하거나 whatap.server.host를 고치세요";
    ClockGood: "{0} has the same time", "{0} 서버와 시각이 같습니다";
    ClockBehind: "this host's clock is {1} s behind that of {0}", "이 호스트의 시계가 {0} 서버보다 {1}초 느립니다";
    ClockAhead: "this host's clock is {1} s ahead of that of {0}", "이 호스트의 시계가 {0} 서버보다 {1}초 빠릅니다";

    LogNone: "nothing was written to {0} in the last day", "최근 하루 동안 {0}에 기록된 내용이 없습니다";
    LogQuiet: "no known fault at the end of the logs in {0}", "{0} 로그의 끝부분에 알려진 장애가 없습니다";
    LogLine: "{0}: {1}", "{0}: {1}";
    LogConfFile: "make the home writable for its user: the configuration file could not be made", "홈을 해당 사용자가 쓸 수 있게 하세요. 설정 파일을 만들 수 없었습니다";
    LogConfRead: "make the file readable for the user of the application", "애플리케이션 사용자가 파일을 읽을 수 있게 하세요";
    LogLicence: "compare the license with `whatap-server project list` and `project licence NAME`", "라이선스를 `whatap-server project list`와 `project licence 이름`의 출력과 비교하세요";
    LogFalseServer: "correct whatap.server.host and whatap.server.port: another program answers there", "whatap.server.host와 whatap.server.port를 고치세요. 다른 프로그램이 응답하고 있습니다";
    LogUnresolved: "correct whatap.server.host, or the name service of this host", "whatap.server.host나 이 호스트의 이름 서비스를 고치세요";
    LogNoLocalServer: "start whatap-server, or name a server with whatap-setting-config --host", "whatap-server를 시작하거나 whatap-setting-config --host로 서버를 지정하세요";
    LogRejected: "look into the server's log for the reason", "서버 로그에서 이유를 확인하세요";
    LogMemory: "give the container 16 MiB more, or start fewer interpreters", "컨테이너 메모리를 16MiB 이상 늘리거나 인터프리터 수를 줄이세요";
    LogLimit: "raise ring_max_count or ring_max_mb", "ring_max_count 또는 ring_max_mb 값을 늘리세요";
    LogToken: "start the program through whatap-start-agent as the user that it runs as", "프로그램을 실행 사용자 계정에서 whatap-start-agent로 시작하세요";
    LogRestarted: "nothing to do if it stays at once; often: look for the kernel's out-of-memory killer in `dmesg`", "한 번이면 조치할 것이 없습니다. 반복되면 `dmesg`에서 메모리 부족 종료를 확인하세요";
    LogAborted: "a process died while it served this request: look into the application's own log", "이 요청을 처리하던 프로세스가 죽었습니다. 애플리케이션 로그를 확인하세요";
    LogSwallowed: "a fault of the tracer that the application did not notice: please report the line", "애플리케이션에는 영향이 없던 트레이서 장애입니다. 이 줄을 알려 주세요";

    CommandGood: "{0}", "{0}";
    CommandOther: "{0} is no Python program; Python programs that it starts are traced", "{0} 프로그램은 파이썬이 아닙니다. 이 프로그램이 시작하는 파이썬 프로그램은 추적됩니다";
    CommandCannotStart: "{0}: {1}", "{0}: {1}";
    FixCommand: "correct the command, or run this where and as whom it is started", "명령을 고치거나, 그 명령을 시작하는 디렉터리와 사용자로 점검하세요";
    AgentNotCalled: "{0}:{1}: `whatap.agent` without parentheses calls nothing", "{0}:{1}: 괄호 없는 `whatap.agent`는 아무것도 호출하지 않습니다";
    CommandEnvironment: "{0}: `{1}` takes away the variables by which Python finds the tracer: it will not be traced", "{0}: `{1}` 때문에 파이썬이 트레이서를 찾는 환경 변수가 사라져 추적되지 않습니다";
    FixEnvironment: "put whatap-start-agent behind it: `… whatap-start-agent PROGRAM`", "그 뒤에 whatap-start-agent를 두세요: `… whatap-start-agent 프로그램`";
    PythonGood: "{0}, Python {1}", "{0}, 파이썬 {1}";
    PythonUnknown: "{0}; its files do not tell its version", "{0}; 파일만으로는 버전을 알 수 없습니다";
    PythonNew: "{0}: Python {1} is newer than what this version was tested with", "{0}: 파이썬 {1} 버전은 이 버전이 시험한 것보다 최신입니다";
    PythonOld: "{0}: Python {1} is not supported; it runs untraced", "{0}: 파이썬 {1} 버전은 지원하지 않으며 추적 없이 실행됩니다";
    FixPythonOld: "use Python 2.7, or 3.3 or newer", "파이썬 2.7 또는 3.3 이상을 사용하세요";
    PythonFlag: "python -{0} ignores PYTHONPATH or site: it will not be traced", "python -{0} 옵션은 PYTHONPATH나 site를 무시하므로 추적되지 않습니다";
    FixPythonFlag: "leave the flag out, or call whatap.agent() in the program", "옵션을 빼거나 프로그램에서 whatap.agent()를 호출하세요";
    Sitecustomize: "{0} runs as well, after ours", "{0} 파일도 우리 것 다음에 실행됩니다";
    WorkersFork: "{0}: each worker process is traced by itself, also after a fork", "{0}: 각 워커 프로세스가 fork 후에도 개별적으로 추적됩니다";
    WorkersPreload: "{0} --preload: what is traced before the fork is not carried into the workers; each worker is traced by itself", "{0} --preload: fork 전의 추적 내용은 워커로 이어지지 않으며 각 워커가 개별적으로 추적됩니다";
    WorkersGreenlets: "{0} with greenlets: each request is traced by itself; the tracer starts no thread and patches nothing for it", "{0} 그린렛: 각 요청이 개별적으로 추적됩니다. 트레이서는 스레드를 시작하지 않습니다";
    UwsgiGood: "uWSGI: neither threads nor fork hooks need to be switched on", "uWSGI: 스레드나 fork 훅을 켤 필요가 없습니다";
    UwsgiObstacle: "uWSGI's `{0}` keeps Python from finding the tracer: it will not be traced", "uWSGI의 `{0}` 설정 때문에 파이썬이 트레이서를 찾지 못해 추적되지 않습니다";
    FixUwsgi: "take `{0}` out of the settings, or call whatap.agent() in the program", "설정에서 `{0}` 항목을 빼거나 프로그램에서 whatap.agent()를 호출하세요";

    FixLive: "mend what the lines above name, `agent`, `server` and `log` first", "위에 나온 문제를 고치세요. `agent`, `server`, `log` 줄이 먼저입니다";
    FixLivePython: "name the interpreter behind the options: whatap-doctor --live SEC PYTHON", "옵션 뒤에 인터프리터를 지정하세요: whatap-doctor --live 초 파이썬";
    LiveGood: "one test transaction went through ring {0} to the server and was acknowledged; {1} ms in all", "시험 트랜잭션 하나가 링 {0}을 거쳐 서버에 저장되었습니다. 총 {1}ms";
    LiveNoPython: "there is no python3 and no python on PATH", "PATH에 python3이나 python이 없습니다";
    LiveNoLauncher: "whatap-start-agent is not installed", "whatap-start-agent가 설치되어 있지 않습니다";
    LiveNotStarted: "{0} did not do its part: {1}", "{0} 실행에 실패했습니다: {1}";
    LiveUntraced: "{0} ran without the tracer: {1}", "{0} 프로그램이 트레이서 없이 실행되었습니다: {1}";
    LiveNoRing: "the tracer got no ring from the collector: {0}", "트레이서가 수집기에서 링을 받지 못했습니다: {0}";
    LiveNoAgent: "the transaction was handed on, and the agent is not to be asked: {0}", "트랜잭션은 전달되었으나 에이전트에 물어볼 수 없습니다: {0}";
    LiveNotAcknowledged: "the transaction is in the spool, and the server has not acknowledged it in time: {0}", "트랜잭션은 스풀에 있으나 서버가 제시간에 확인하지 않았습니다: {0}";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<&str> {
        let mut found: Vec<_> = text
            .split('{')
            .skip(1)
            .filter_map(|part| part.split_once('}').map(|(number, _)| number))
            .collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn both_languages_say_the_same_values() {
        for say in Say::ALL {
            let [english, korean] = [Language::English, Language::Korean].map(|l| say.plain(l));
            assert_eq!(places(english), places(korean), "{say:?}");
            let only_values = english.starts_with('{') && english.ends_with('}');
            let is_korean = korean.chars().any(|c| ('가'..='힣').contains(&c));
            assert!(only_values || is_korean, "{say:?}");
        }
    }

    #[test]
    fn values_are_put_into_their_places() {
        let words = Say::HomeOfAnother.with([&"/h", &"{2}", &7]);
        assert!(
            words
                .text(Language::English)
                .starts_with("/h belongs to {2}, this is 7;")
        );
        assert_eq!(words.name(), "home_of_another");
    }

    #[test]
    fn the_language_is_the_users() {
        let of = |pairs: &[(&str, &str)]| Language::of(&pairs.iter().copied().collect());
        assert_eq!(of(&[("LANG", "ko_KR.UTF-8")]), Language::Korean);
        assert_eq!(
            of(&[("LANG", "ko_KR.UTF-8"), ("LC_ALL", "C")]),
            Language::English
        );
        let empty = [("LC_ALL", ""), ("LANG", "ko_KR")];
        assert_eq!(of(&empty), Language::Korean);
        assert_eq!(of(&[("LANG", "kok_IN")]), Language::English);
        assert_eq!(of(&[]), Language::English);
    }
}
