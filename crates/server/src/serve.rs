//! Running the server: open the data directory, listen, serve until told to stop, drain.

use std::fs::DirBuilder;
use std::io::{self, IsTerminal, stderr};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::api;
use crate::app::{App, now_us};
use crate::auth::Access;
use crate::engine::{Engine, OpenError, Options};
use crate::listen::{self, Door, Patience, Serving};
use crate::log;
use crate::project;
use crate::secret;
use crate::server_json::ServerJson;

/// What the command line decided.
pub struct Settings {
    pub data_dir: PathBuf,
    pub storage: Options,
    pub agents: Listen,
    pub http: Listen,
    pub otlp: Option<Listen>,
    /// Started by a launch for its user: takes the next free port, ends when nobody needs it.
    pub local: bool,
    /// How long nobody must need it, in local mode.
    pub idle: Duration,
    /// A link that a launcher has printed already.
    pub one_time_token: Option<String>,
    pub allowed_hosts: Vec<String>,
}

/// Where to listen.
pub enum Listen {
    At(SocketAddr),
    /// Bound by whoever started us; connections may be waiting already.
    Inherited(TcpListener),
}

/// Serves until SIGTERM, SIGINT or SIGHUP. An error means that it did not start.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    unblock_signals();
    raise_descriptor_limit();
    let data_dir = prepare(&settings.data_dir)?;
    let engine = match Engine::open(&data_dir, settings.storage.clone()) {
        Ok(engine) => Arc::new(engine),
        Err(OpenError::Locked) => bail!("{} is in use by another server", data_dir.display()),
        Err(error) => bail!("cannot open {}: {error}", data_dir.display()),
    };
    let served =
        Server::start(&settings, &data_dir, Arc::clone(&engine)).and_then(Server::until_stopped);
    engine.close();
    served
}

struct Server {
    runtime: Runtime,
    app: Arc<App>,
    info: ServerJson,
    data_dir: PathBuf,
    stop: watch::Sender<bool>,
    alive: mpsc::Receiver<std::convert::Infallible>,
    /// Local mode: how long nobody must need us.
    idle: Option<Duration>,
}

impl Server {
    fn start(
        settings: &Settings,
        data_dir: &std::path::Path,
        engine: Arc<Engine>,
    ) -> anyhow::Result<Self> {
        let agents = bind(&settings.agents, settings.local)?;
        let http = bind(&settings.http, settings.local)?;
        let otlp = settings
            .otlp
            .as_ref()
            .map(|listen| bind(listen, false))
            .transpose()?;
        let token = secret::random_hex(32).context("no random numbers")?;
        let (agents_at, http_at) = (agents.local_addr()?, http.local_addr()?);
        let info = ServerJson {
            version: 1,
            pid: std::process::id(),
            agents: agents_at.to_string(),
            http: http_at.to_string(),
            otlp: otlp
                .as_ref()
                .map(|otlp| otlp.local_addr().map(|at| at.to_string()))
                .transpose()?,
            url: format!("http://{}/", reachable(http_at)),
            token,
            data_dir: data_dir.to_owned(),
            started_us: now_us(),
        };
        let (stop, stopping) = watch::channel(false);
        let (alive, alive_end) = mpsc::channel(1);
        let access = Access::new(&info.token, data_dir);
        let app = Arc::new(App::new(
            engine,
            access,
            allowed_hosts(settings, http_at),
            stopping,
        ));
        project::write_licence(&app.engine, data_dir).context("cannot write the licence file")?;
        project::publish(&app.engine, &app.licences)?;
        if let Some(token) = &settings.one_time_token {
            app.access.allow_once(token);
        }
        let runtime = Builder::new_multi_thread()
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()?;
        let agents_router = api::agents_router(Arc::clone(&app));
        let mut doors = vec![
            (Door::Agents, agents, agents_router.clone()),
            (Door::Http, http, api::router(Arc::clone(&app))),
        ];
        doors.extend(otlp.map(|otlp| (Door::Otlp, otlp, agents_router)));
        for (door, listener, router) in doors {
            open(&runtime, door, listener, router, &app, &alive)?;
        }
        info.write(data_dir)
            .with_context(|| format!("cannot write {}/server.json", data_dir.display()))?;
        announce(settings, &info, &app, [agents_at, http_at]);
        let idle = settings.local.then_some(settings.idle);
        Ok(Self {
            runtime,
            app,
            info,
            data_dir: data_dir.to_owned(),
            stop,
            alive: alive_end,
            idle,
        })
    }

    fn until_stopped(mut self) -> anyhow::Result<()> {
        let waited = self.runtime.block_on(async {
            let mut signals = [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            ];
            let [terminate, interrupt, hangup] = &mut signals;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
                () = unused(&self.app, self.idle) => log::line("ends: no agent and no browser for an hour"),
            }
            io::Result::Ok(())
        });
        // Nobody should find us any more; who is being served is.
        self.info.remove(&self.data_dir);
        self.stop.send_replace(true);
        self.runtime.block_on(async {
            drop(tokio::time::timeout(DRAIN, self.alive.recv()).await);
        });
        self.runtime.shutdown_timeout(DRAIN);
        Ok(waited?)
    }
}

/// Resolves when nobody has asked for anything for that long; without a limit never.
async fn unused(app: &App, idle: Option<Duration>) {
    let Some(idle) = idle else {
        return std::future::pending().await;
    };
    let idle_us = i64::try_from(idle.as_micros()).unwrap_or(i64::MAX);
    while now_us() - app.used_us.load(Ordering::Relaxed) < idle_us {
        tokio::time::sleep(idle.min(Duration::from_secs(5))).await;
    }
}

fn open(
    runtime: &Runtime,
    door: Door,
    listener: TcpListener,
    router: Router,
    app: &Arc<App>,
    alive: &mpsc::Sender<std::convert::Infallible>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let _inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let serving = Serving {
        door,
        router,
        connections: Arc::clone(&app.connections),
        patience: Patience::default(),
        stop: app.stop.clone(),
        alive: alive.clone(),
    };
    runtime.spawn(listen::accept(listener, serving));
    Ok(())
}

/// Ours alone, if we have to make it.
fn prepare(data_dir: &std::path::Path) -> anyhow::Result<PathBuf> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir);
    made.and_then(|()| data_dir.canonicalize())
        .with_context(|| format!("cannot use the data directory {}", data_dir.display()))
}

fn bind(listen: &Listen, next_free: bool) -> anyhow::Result<TcpListener> {
    let wanted = match listen {
        Listen::Inherited(listener) => return Ok(listener.try_clone()?),
        Listen::At(address) => *address,
    };
    let mut address = wanted;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && next_free && address.port() != 0 =>
            {
                let next = address
                    .port()
                    .checked_add(1)
                    .filter(|next| next - wanted.port() < NEXT_PORTS);
                match next {
                    Some(next) => address.set_port(next),
                    None => bail!("ports {} to {} are taken", wanted.port(), address.port()),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                bail!(
                    "port {} is taken: another program listens on {wanted}",
                    wanted.port()
                )
            }
            Err(error) => bail!("cannot listen on {wanted}: {error}"),
        }
    }
}

/// An address that a browser on this machine can open.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let mut address = listening;
    if listening.ip().is_unspecified() {
        address.set_ip(if listening.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

/// An address that was asked for by name may be called by it.
fn allowed_hosts(settings: &Settings, http: SocketAddr) -> Vec<String> {
    let mut hosts = settings.allowed_hosts.clone();
    if !http.ip().is_loopback() && !http.ip().is_unspecified() {
        hosts.push(http.ip().to_string());
    }
    hosts
}

/// Says where we are. The link logs in whoever has it, so it is for a terminal, never for a log file.
fn announce(settings: &Settings, info: &ServerJson, app: &App, addresses: [SocketAddr; 2]) {
    log::line(&format!(
        "agents on {}, dashboard on {}",
        info.agents, info.url
    ));
    if addresses.iter().any(|address| !address.ip().is_loopback()) {
        log::line(
            "warning: listens beyond this machine without TLS; licences, sessions and data can be read on the way",
        );
    }
    if settings.local || settings.one_time_token.is_some() {
        return;
    }
    if !stderr().is_terminal() {
        log::line("`whatap-server link` prints an address that logs in");
    } else if let Ok(token) = secret::random_hex(32) {
        app.access.allow_once(&token);
        log::line(&format!("open {}?token={token} (works once)", info.url));
    }
}

/// Whoever started us may wait for signals by blocking them, and a blocked one would not end us.
fn unblock_signals() {
    if nix::sys::signal::SigSet::empty().thread_set_mask().is_err() {
        log::line("cannot unblock signals");
    }
}

fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err()
    {
        log::line("cannot raise the limit of open files");
    }
}

/// How long connections may take to end, and queries that still run.
const DRAIN: Duration = Duration::from_secs(6);
const BLOCKING_THREADS: usize = 32;
/// How many ports are tried in local mode.
const NEXT_PORTS: u16 = 100;
