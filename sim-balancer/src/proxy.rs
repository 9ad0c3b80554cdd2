//! Listeners: a proxy for HTTP/1.1, HTTP/2, gRPC, WebSocket, TLS, TCP and UDP, configured by plain structs or a file.

mod assemble;
mod keeper;
mod secure;
mod worker;

pub mod action;
pub mod auth;
pub mod config;
pub mod cookie;
pub mod file;
pub mod http;
pub mod log;
pub mod pass;
pub mod prefix;
pub mod rule;
pub mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use sim_core::clock::Clock;
use sim_core::random::Random;
use sim_core::snapshot::Snapshot;
use sim_core::sync::{Arc, Mutex, thread};
use tokio::sync::{oneshot, watch};

use self::auth::{Keeper, WebFetch, WebFetchConfig};
use self::config::{ListenerConfig, Protocol, ProxyConfig, ProxyConfigError};
use self::cookie::{Keys, KeysError};
use self::http::group::{Address, Endpoint, Group};
use self::http::metric::HttpStats;
use self::http::site::{Hall, Site, Worker};
use self::log::{Log, LogStats};
use self::pass::PassStats;
use self::rule::Routes;
use self::tls::TlsError;
use self::worker::{Gate, Stage, work};
use crate::balancer::Balancer;
use crate::error::ConfigError;
use crate::message::{Target, TargetId};

/// A proxy: sockets that are bound, and what its listeners do. A cheap handle.
///
/// [`bind`](Self::bind) checks everything and takes the sockets; [`run`](Self::run) serves. Nothing runs before `run` is
/// polled nor after it has ended. [`reload`](Self::reload) may be called at any time from any thread.
///
/// Memory is bounded by `max_connections`, the sizes of heads, and the streams of HTTP/2; bodies pass in pieces and are never
/// held whole.
#[derive(Clone)]
pub struct Proxy(Arc<Shared>);

struct Shared {
    hall: Arc<Hall>,
    workers: usize,
    control: Mutex<Control>,
    gates: watch::Sender<Arc<[Arc<Gate>]>>,
    groups: watch::Sender<Arc<[Arc<Group>]>>,
}

/// What a reload changes.
struct Control {
    config: ProxyConfig,
    groups: BTreeMap<String, Arc<Group>>,
    keys: Option<Arc<Keys>>,
    next_gate: u64,
    next_serial: u64,
    running: bool,
}

impl Proxy {
    /// Checks a configuration and binds its listeners. Connections wait in the sockets' queues until [`run`](Self::run).
    ///
    /// # Errors
    /// The first thing that cannot be used: a field, a certificate, an address that is taken. Nothing stays bound then.
    pub fn bind(config: ProxyConfig, clock: Clock) -> Result<Self, ProxyError> {
        // The counter is calibrated at the first reading; not in the first request.
        let _ = clock.fine();
        let workers = match config.attributes.workers {
            0 => thread::available_parallelism().map_or(1, std::num::NonZero::get),
            workers => workers,
        };
        let fetch = WebFetch::new(WebFetchConfig::default(), clock.clone()).map_err(|problem| {
            ProxyError::Tls {
                name: "identity providers".to_owned(),
                problem,
            }
        })?;
        let hall = Arc::new(Hall {
            name: config.name.as_str().into(),
            metrics: http::metric::Metrics::default(),
            access: open_log(config.logs.access.as_ref())?,
            connections: open_log(config.logs.connection.as_ref())?,
            checks: open_log(config.logs.health_check.as_ref())?,
            open: Mutex::new(0),
            keeper: Keeper::new(clock.clone(), Box::new(fetch)),
            clock,
        });
        let (gates, _) = watch::channel(Arc::from(Vec::new()));
        let (groups, _) = watch::channel(Arc::from(Vec::new()));
        let proxy = Self(Arc::new(Shared {
            hall,
            workers,
            control: Mutex::new(Control {
                config: ProxyConfig::default(),
                groups: BTreeMap::new(),
                keys: None,
                next_gate: 0,
                next_serial: 0,
                running: false,
            }),
            gates,
            groups,
        }));
        proxy.reload(config)?;
        Ok(proxy)
    }

    /// Replaces the configuration, all or nothing, without dropping a connection.
    ///
    /// Listeners whose address stays keep their sockets; requests that begin after it see the new rules and targets. Groups
    /// that stay keep their targets' counts and connections. Listeners that are gone accept no more, and what is under way on them
    /// may finish. The number of workers and the logs stay as they were bound. Targets that stay get their new weight, and keep
    /// priority, zone and the most requests in progress that they were registered with.
    ///
    /// New connections over TCP and TLS go by the new settings and group. A listener for datagrams sees the group's targets come
    /// and go, but keeps the group and settings that it was bound with: give it another port to change them. The counts of
    /// a listener that is not HTTP begin anew when its settings or its group changed, and with each reload on TLS.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); the former configuration stays in force.
    pub fn reload(&self, config: ProxyConfig) -> Result<(), ProxyError> {
        let shared = &*self.0;
        let clock = &shared.hall.clock;
        let mut control = shared.control.lock();
        let keys = match &control.keys {
            // Cookies stay readable: keys that were drawn are kept.
            Some(keys) if control.config.secrets == config.secrets => Arc::clone(keys),
            _ => Arc::new(Keys::new(&config.secrets)?),
        };
        let plan = config.plan(&keys)?;
        let mut groups = Vec::with_capacity(config.target_groups.len());
        for (group, planned) in config.target_groups.iter().zip(plan.groups) {
            let Control {
                groups: former,
                next_serial,
                ..
            } = &mut *control;
            let former = former.get(&group.name);
            let made = assemble::group(
                group,
                planned,
                &config,
                former,
                shared.workers,
                next_serial,
                clock,
            )?;
            groups.push(Arc::new(made));
        }
        let groups: Arc<[Arc<Group>]> = groups.into();
        let former = Arc::clone(&shared.gates.borrow());
        let mut gates: Vec<Arc<Gate>> = Vec::new();
        let mut renewed: Vec<(Arc<Gate>, Arc<str>, Site)> = Vec::new();
        for (listener, planned) in config.listeners.iter().zip(plan.listeners) {
            let (asked, label, routes) = (planned.bind, planned.name, planned.routes);
            let kept = former.iter().find(|gate| {
                gate.asked == asked
                    && gate.protocol == listener.protocol
                    && (asked.port() != 0 || **gate.name.lock() == *label)
            });
            let failed = |problem: io::Error| ProxyError::Bind {
                listener: label.clone(),
                address: asked,
                problem,
            };
            if let Some(gate) = kept {
                let before = gate.site.load_arc();
                let site = self.site(
                    listener,
                    &config,
                    &groups,
                    routes,
                    gate.address.port(),
                    Some(&before),
                )?;
                renewed.push((Arc::clone(gate), label.as_str().into(), site));
                gates.push(Arc::clone(gate));
                continue;
            }
            let (mut address, mut sockets, mut datagrams) = (asked, Vec::new(), Vec::new());
            if listener.protocol != Protocol::Udp {
                (address, sockets) = assemble::bind(address, shared.workers).map_err(failed)?;
            }
            if matches!(listener.protocol, Protocol::Udp | Protocol::TcpUdp) {
                (address, datagrams) =
                    assemble::bind_datagrams(address, shared.workers).map_err(failed)?;
            }
            let site = self.site(listener, &config, &groups, routes, address.port(), None)?;
            gates.push(Arc::new(Gate {
                id: control.next_gate,
                name: Mutex::new(label.as_str().into()),
                address,
                asked,
                protocol: listener.protocol,
                site: Arc::new(Snapshot::new(site)),
                sockets: Mutex::new(sockets),
                datagrams: Mutex::new(datagrams),
            }));
            control.next_gate += 1;
        }
        for (group, config) in groups.iter().zip(&config.target_groups) {
            assemble::settle_targets(group, config)?;
        }
        // From here on nothing fails.
        for (gate, name, site) in renewed {
            *gate.name.lock() = name;
            gate.site.store(Arc::new(site));
        }
        control.groups = groups
            .iter()
            .map(|group| (group.name.to_string(), Arc::clone(group)))
            .collect();
        control.config = config;
        control.keys = Some(keys);
        shared.groups.send_replace(groups);
        shared.gates.send_replace(gates.into());
        Ok(())
    }

    fn site(
        &self,
        listener: &ListenerConfig,
        config: &ProxyConfig,
        groups: &Arc<[Arc<Group>]>,
        routes: Routes,
        port: u16,
        former: Option<&Site>,
    ) -> Result<Site, ProxyError> {
        let clock = &self.0.hall.clock;
        let settings = assemble::settings(listener, config, port);
        let mut site = Site {
            settings,
            groups: Arc::clone(groups),
            routes,
            tls: None,
            prefix: None,
            pass: None,
        };
        if !listener.protocol.is_http() {
            // One group a listener: the weights of several are drawn once.
            let group = site
                .routes
                .default_group(0)
                .and_then(|group| groups.get(group));
            let group = group.ok_or_else(|| ProxyError::Listener {
                name: listener.label(),
                problem: "default_actions: no target group".to_owned(),
            })?;
            site.pass = Some(assemble::passing(listener, config, group, former, clock)?);
            return Ok(site);
        }
        if listener.protocol.is_secure() {
            site.tls = Some(secure::acceptor(listener, config, clock)?);
        }
        site.prefix = secure::prefix(listener, clock)?;
        Ok(site)
    }

    /// Serves until `shutdown` completes, then lets what is under way finish for the drain timeout.
    ///
    /// It starts one thread a worker, which end with it.
    ///
    /// # Errors
    /// When it runs already, or a thread cannot have a runtime.
    ///
    /// # Cancel safety
    /// Dropping it ends all connections at once and waits for the threads to end. The sockets of listeners are closed with
    /// the threads that had taken them: a proxy runs once.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let shared = &*self.0;
        if std::mem::replace(&mut shared.control.lock().running, true) {
            return Err(RunError::Running);
        }
        let (stage, _) = watch::channel(Stage::Running);
        let mut crew = Crew {
            stage,
            threads: Vec::new(),
        };
        let mut ends = Vec::new();
        let seed = Random::new(seed(&shared.hall.clock));
        for index in 0..shared.workers {
            let worker = Arc::new(Worker {
                index,
                hall: Arc::clone(&shared.hall),
                random: Mutex::new(seed.fork(&index.to_string())),
                copies: Mutex::new(0),
            });
            let (gates, stage) = (shared.gates.subscribe(), crew.stage.subscribe());
            let (ended, end) = oneshot::channel();
            crew.threads.push(thread::spawn(move || {
                let outcome = work(&worker, gates, stage);
                let _ = ended.send(outcome);
            }));
            ends.push(end);
        }
        let logs: Vec<Log> = [
            &shared.hall.access,
            &shared.hall.connections,
            &shared.hall.checks,
        ]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
        let checks = shared.hall.checks.clone();
        let (groups, stage) = (shared.groups.subscribe(), crew.stage.subscribe());
        let (ended, end) = oneshot::channel();
        crew.threads.push(thread::spawn(move || {
            let _ = ended.send(keeper::keep(&logs, checks.as_ref(), groups, stage));
        }));
        let mut kept = end;
        {
            let mut ended = pin!(async {
                for end in &mut ends {
                    if let Ok(Err(error)) = end.await {
                        return error;
                    }
                }
                io::Error::other("the workers ended")
            });
            let mut keeper = pin!(async {
                if let Ok(Err(error)) = (&mut kept).await {
                    return error;
                }
                io::Error::other("the keeper ended")
            });
            let mut shutdown = pin!(shutdown);
            tokio::select! {
                biased;
                () = &mut shutdown => {}
                problem = &mut ended => return Err(RunError::Worker(problem)),
                problem = &mut keeper => return Err(RunError::Worker(problem)),
            }
        }
        crew.stage.send_replace(Stage::Draining);
        for end in ends {
            let _ = end.await;
        }
        drop(crew);
        Ok(())
    }

    /// The listeners by name, each with the address that it is bound to.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<(String, SocketAddr)> {
        let gates = Arc::clone(&self.0.gates.borrow());
        gates
            .iter()
            .map(|gate| (gate.name.lock().to_string(), gate.address))
            .collect()
    }

    /// The balancer of a target group.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<Balancer<Arc<Endpoint>>> {
        self.0
            .control
            .lock()
            .groups
            .get(name)
            .map(|group| group.balancer.clone())
    }

    /// Registers a target that no configuration names, as a function; a reload leaves it where it is.
    ///
    /// # Errors
    /// When there is no such group, or its balancer refuses the target.
    pub fn register(
        &self,
        group: &str,
        id: impl Into<TargetId>,
        address: Address,
    ) -> Result<(), ProxyError> {
        let group = self
            .0
            .control
            .lock()
            .groups
            .get(group)
            .cloned()
            .ok_or_else(|| ProxyError::NoGroup {
                name: group.to_owned(),
            })?;
        let id = id.into();
        let endpoint = Arc::new(Endpoint::registered(address, &group.dial));
        let mut targets = group.targets.lock();
        let target = Target::new(id.clone(), Arc::clone(&endpoint));
        group
            .balancer
            .register(target)
            .map_err(|error| ProxyError::Target {
                group: group.name.to_string(),
                problem: error.to_string(),
            })?;
        targets.insert(id, endpoint);
        Ok(())
    }

    /// Deregisters a target: it gets no new request, and finishes those that it has.
    ///
    /// # Errors
    /// When there is no such group or target.
    pub fn deregister(&self, group: &str, id: impl Into<TargetId>) -> Result<(), ProxyError> {
        let group = self
            .0
            .control
            .lock()
            .groups
            .get(group)
            .cloned()
            .ok_or_else(|| ProxyError::NoGroup {
                name: group.to_owned(),
            })?;
        let id = id.into();
        group.targets.lock().remove(&id);
        group
            .balancer
            .deregister(&id)
            .map_err(|error| ProxyError::Target {
                group: group.name.to_string(),
                problem: error.to_string(),
            })
    }

    /// What has been counted.
    #[must_use]
    pub fn stats(&self) -> ProxyStats {
        let shared = &*self.0;
        let groups: Vec<Arc<Group>> = shared.control.lock().groups.values().cloned().collect();
        ProxyStats {
            http: shared.hall.metrics.read(),
            passes: Arc::clone(&shared.gates.borrow())
                .iter()
                .filter_map(|gate| {
                    let stats = gate.site.load().pass.as_ref()?.pass.stats();
                    Some((gate.name.lock().to_string(), stats))
                })
                .collect(),
            groups: groups
                .iter()
                .map(|group| {
                    let http = group.metrics.read();
                    let targets = group.targets.lock().len();
                    GroupStats {
                        name: group.name.to_string(),
                        request_count: http.request_count,
                        request_count_per_target: http.request_count as f64 / targets.max(1) as f64,
                        targets,
                        http,
                    }
                })
                .collect(),
            access_log: shared.hall.access.as_ref().map(Log::stats),
            connection_log: shared.hall.connections.as_ref().map(Log::stats),
            health_check_log: shared.hall.checks.as_ref().map(Log::stats),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("listeners", &self.local_addrs())
            .finish_non_exhaustive()
    }
}

/// The threads of a run, which end with it.
struct Crew {
    stage: watch::Sender<Stage>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stage.send_replace(Stage::Ended);
        for thread in self.threads.drain(..) {
            // A thread that panicked has told so; there is nothing left of it.
            let _ = thread.join();
        }
    }
}

/// A seed that differs from start to start: ids of traces and connections must not repeat.
fn seed(clock: &Clock) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_i64(clock.timestamp(clock.now()).as_unix_nanos());
    hasher.finish()
}

fn open_log(target: Option<&config::LogTarget>) -> Result<Option<Log>, ProxyError> {
    let Some(target) = target else {
        return Ok(None);
    };
    match &target.path {
        None => Ok(Some(Log::output(target.capacity))),
        Some(path) => Log::file(path, target.capacity)
            .map(Some)
            .map_err(|problem| ProxyError::Log {
                path: path.clone(),
                problem,
            }),
    }
}

/// Why a configuration cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// A field cannot be used.
    #[error(transparent)]
    Config(#[from] ProxyConfigError),
    /// Keys of cookies cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A listener cannot be made.
    #[error("listener \"{name}\": {problem}")]
    Listener {
        /// The listener's name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// An address cannot be listened on.
    #[error("listener \"{listener}\" cannot bind {address}: {problem}")]
    Bind {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        #[source]
        problem: io::Error,
    },
    /// Certificates or keys cannot be used.
    #[error("\"{name}\": {problem}")]
    Tls {
        /// The name of the listener or the group.
        name: String,
        /// What is wrong.
        #[source]
        problem: TlsError,
    },
    /// A group's balancer cannot be made.
    #[error("target group \"{name}\": {problem}")]
    Group {
        /// The group's name.
        name: String,
        /// What is wrong.
        #[source]
        problem: ConfigError,
    },
    /// A target cannot be registered or deregistered.
    #[error("target group \"{group}\": {problem}")]
    Target {
        /// The group's name.
        group: String,
        /// What is wrong.
        problem: String,
    },
    /// There is no such group.
    #[error("there is no target group \"{name}\"")]
    NoGroup {
        /// The name.
        name: String,
    },
    /// A log cannot be opened.
    #[error("log {}: {problem}", path.display())]
    Log {
        /// The file.
        path: std::path::PathBuf,
        /// What the operating system says.
        #[source]
        problem: io::Error,
    },
}

/// Why a proxy cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It runs, or has run.
    #[error("the proxy runs already, or has run")]
    Running,
    /// A worker could not start.
    #[error("a worker could not start: {0}")]
    Worker(#[source] io::Error),
}

/// What a proxy has counted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProxyStats {
    /// All HTTP and HTTPS listeners together.
    pub http: HttpStats,
    /// The listeners for TCP, TLS and UDP, by name.
    pub passes: Vec<(String, PassStats)>,
    /// The target groups, by name.
    pub groups: Vec<GroupStats>,
    /// The access log, if there is one.
    pub access_log: Option<LogStats>,
    /// The connection log, if there is one.
    pub connection_log: Option<LogStats>,
    /// The log of health checks, if there is one.
    pub health_check_log: Option<LogStats>,
}

/// What a target group has counted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GroupStats {
    /// Its name.
    pub name: String,
    /// Requests that were sent to its targets.
    pub request_count: u64,
    /// The same, divided by the number of targets that are registered now. Scaling reads its growth.
    pub request_count_per_target: f64,
    /// Targets that are registered.
    pub targets: usize,
    /// Statuses and times of its targets' responses; what only listeners count is zero.
    pub http: HttpStats,
}
