//! The proxy beside nginx and haproxy: processor time per request, on the loopback, one thread each.
//!
//! Each proxy is a process of its own before the same target, and is driven by the same clients in a closed loop, in
//! turns, round by round. What counts is the time that the system charged the process (user and system, its children
//! included), divided by the requests that it answered; a round's ratio is to the better of the rivals in that round. Client and
//! target run in this process and are charged to nobody.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use sim_balancer::proxy::Proxy;
use sim_balancer::proxy::config::{
    ActionConfig, Attributes, ForwardConfig, ListenerConfig, ProxyConfig, TargetConfig,
    TargetGroupConfig,
};
use sim_core::clock::Clock;

use crate::pattern::Failure;
use crate::report::Origin;
use crate::timing::Stopwatch;

/// The first argument of the process that is the proxy of this project.
pub const SERVE: &str = "serve-proxy";

/// Connections of the clients.
const CONNECTIONS: usize = 64;

/// Bytes of a response's body.
const BODY: usize = 1_024;

/// The most that a request may cost, as a multiple of the better rival's.
const BAR: f64 = 1.3;

/// How long a proxy has to begin to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a run goes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rounds that count; one more comes first and does not.
    pub rounds: usize,
    /// How long each proxy is driven in a round.
    pub length: Duration,
    /// Whether figures are printed as one object a line.
    pub json: bool,
    /// Where the figures are written, if they are.
    pub out: Option<PathBuf>,
}

/// What one proxy cost, round by round, in nanoseconds a request.
struct Cost {
    name: &'static str,
    rounds: Vec<f64>,
}

/// Runs the proxies and prints what they cost.
///
/// # Errors
/// When a proxy that is there does not start, or answers something else than the target did.
pub fn run(plan: &Plan) -> Result<(), Failure> {
    let origin = Origin::find();
    let folder = std::env::temp_dir().join(format!("sim-proxies-{}", std::process::id()));
    fs::create_dir_all(&folder)
        .map_err(|error| Failure(format!("cannot create {}: {error}", folder.display())))?;
    let outcome = run_in(plan, &folder, &origin);
    let _ = fs::remove_dir_all(&folder);
    outcome
}

fn run_in(plan: &Plan, folder: &Path, origin: &Origin) -> Result<(), Failure> {
    let target = start_target()?;
    let mut proxies = vec![Running::sim(target)?];
    for rival in [
        Running::nginx(folder, target)?,
        Running::haproxy(folder, target)?,
    ] {
        match rival {
            Ok(running) => proxies.push(running),
            Err(name) => eprintln!(
                "benches: proxy: {name} is not installed, and is missing below (apt-get install {name})"
            ),
        }
    }
    let mut costs: Vec<Cost> = proxies
        .iter()
        .map(|proxy| Cost {
            name: proxy.name,
            rounds: Vec::new(),
        })
        .collect();
    for round in 0..=plan.rounds {
        for (proxy, cost) in proxies.iter().zip(&mut costs) {
            let before = proxy.processor_time()?;
            let answered = drive(proxy.address, plan.length)?;
            let used = proxy.processor_time()?.saturating_sub(before);
            if answered == 0 {
                return Err(Failure(format!("{} answered nothing", proxy.name)));
            }
            if round > 0 || plan.rounds == 0 {
                cost.rounds.push(used.as_nanos() as f64 / answered as f64);
            }
        }
    }
    report(plan, &costs, origin)
}

/// Each round's cost of the first by the cheapest of the others, and the median of those.
fn ratio(costs: &[Cost], index: usize) -> Option<f64> {
    let (first, rivals) = costs.split_first()?;
    let of = |round: usize| {
        let best = rivals
            .iter()
            .map(|rival| rival.rounds[round])
            .reduce(f64::min)?;
        let own = if index == 0 {
            first.rounds[round]
        } else {
            rivals[index - 1].rounds[round]
        };
        Some(own / best)
    };
    let ratios: Option<Vec<f64>> = (0..first.rounds.len()).map(of).collect();
    Some(median(ratios?))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(plan: &Plan, costs: &[Cost], origin: &Origin) -> Result<(), Failure> {
    let pattern = format!("http1-{CONNECTIONS}-connections-{BODY}-bytes");
    let mut text = String::new();
    let mut lines = String::new();
    text.push_str(&format!("# The proxy beside nginx and haproxy\n\n{origin}\n\nProcessor time per request: `{pattern}`, {} rounds, one thread each, access logs off.\n\n", plan.rounds));
    text.push_str("| proxy | us a request (median) | rounds | by the better rival |\n| --- | ---: | --- | ---: |\n");
    for (index, cost) in costs.iter().enumerate() {
        let middle = median(cost.rounds.clone());
        let rounds: Vec<String> = cost
            .rounds
            .iter()
            .map(|ns| format!("{:.2}", ns / 1e3))
            .collect();
        let by = ratio(costs, index);
        let shown = by.map_or_else(|| "no rival".to_owned(), |by| format!("{by:.3}"));
        text.push_str(&format!(
            "| {} | {:.2} | {} | {shown} |\n",
            cost.name,
            middle / 1e3,
            rounds.join(" ")
        ));
        // The runner's form: how many times cheaper than the baseline.
        let times = by.map_or(0.0, |by| 1.0 / by);
        lines.push_str(&format!(
            "{{\"group\":\"proxy\",\"pattern\":\"{pattern}\",\"peer\":\"{}\",\"ns\":{middle:.2},\"ratio\":{times:.3}}}\n",
            cost.name
        ));
    }
    match ratio(costs, 0) {
        Some(own) => {
            let verdict = if own <= BAR { "reached" } else { "MISSED" };
            text.push_str(&format!(
                "\nBar: at most {BAR} times the better rival's. Measured {own:.3}: {verdict}.\n"
            ));
        }
        None => text.push_str("\nBar: not judged, since neither nginx nor haproxy is installed.\n"),
    }
    print!("{}", if plan.json { &lines } else { &text });
    if let Some(folder) = &plan.out {
        let write = |name: &str, content: &str| fs::write(folder.join(name), content);
        fs::create_dir_all(folder)
            .and_then(|()| write("proxy.md", &text))
            .and_then(|()| write("proxy.json", &lines))
            .map_err(|error| Failure(format!("cannot write to {}: {error}", folder.display())))?;
    }
    Ok(())
}

/// A proxy that runs as a process of its own, and ends with this value.
struct Running {
    name: &'static str,
    address: SocketAddr,
    child: Child,
}

/// A rival that runs, or the name of one that is not installed.
type Rival = Result<Running, &'static str>;

impl Running {
    fn sim(target: SocketAddr) -> Result<Self, Failure> {
        let own = std::env::current_exe()
            .map_err(|error| Failure(format!("cannot find this program: {error}")))?;
        let address = free_address()?;
        let mut command = Command::new(own);
        command.args([SERVE, &address.to_string(), &target.to_string()]);
        match Self::start("sim-balancer", &mut command, address)? {
            Ok(running) => Ok(running),
            Err(name) => Err(Failure(format!("{name} did not start"))),
        }
    }

    fn nginx(folder: &Path, target: SocketAddr) -> Result<Rival, Failure> {
        let address = free_address()?;
        let path = folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {path}/{kind};\n"))
            .concat();
        let config = format!(
            "worker_processes 1;\ndaemon off;\npid {path}/nginx.pid;\nerror_log /dev/null;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n  access_log off;\n  keepalive_timeout 600s;\n  keepalive_requests 1000000000;\n{temporary}\
             \x20 upstream target {{ server {target}; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 600s; }}\n\
             \x20 server {{\n    listen {address};\n    location / {{\n      proxy_pass http://target;\n      proxy_http_version 1.1;\n\
             \x20     proxy_set_header Connection \"\";\n      proxy_set_header Host $http_host;\n\
             \x20     proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n      proxy_set_header X-Forwarded-Proto $scheme;\n\
             \x20     proxy_set_header X-Forwarded-Port $server_port;\n    }}\n  }}\n}}\n"
        );
        let file = write(folder, "nginx.conf", &config)?;
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(folder).arg("-c").arg(file);
        Self::start("nginx", &mut command, address)
    }

    fn haproxy(folder: &Path, target: SocketAddr) -> Result<Rival, Failure> {
        let address = free_address()?;
        let config = format!(
            "global\n  nbthread 1\n  maxconn 4096\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             \x20 option http-keep-alive\n  http-reuse always\n  option forwardfor\n\
             frontend clients\n  bind {address}\n  http-request set-header X-Forwarded-Proto http\n\
             \x20 http-request set-header X-Forwarded-Port {}\n  default_backend targets\n\
             backend targets\n  server one {target}\n",
            address.port()
        );
        let file = write(folder, "haproxy.cfg", &config)?;
        let mut command = Command::new(program("haproxy"));
        command.arg("-db").arg("-f").arg(file);
        Self::start("haproxy", &mut command, address)
    }

    /// Starts a process and waits until it listens.
    fn start(
        name: &'static str,
        command: &mut Command,
        address: SocketAddr,
    ) -> Result<Rival, Failure> {
        let started = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(name)),
            Err(error) => return Err(Failure(format!("cannot start {name}: {error}"))),
        };
        let running = Self {
            name,
            address,
            child,
        };
        let began = Stopwatch::start();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > PATIENCE {
                return Err(Failure(format!(
                    "{name} does not listen on {address} after {PATIENCE:?}"
                )));
            }
            std::thread::yield_now();
        }
        Ok(Ok(running))
    }

    /// User and system time of the process and its children.
    fn processor_time(&self) -> Result<Duration, Failure> {
        let mut total = Duration::ZERO;
        let mut open = vec![self.child.id()];
        while let Some(id) = open.pop() {
            let text = fs::read_to_string(format!("/proc/{id}/stat"))
                .map_err(|error| Failure(format!("{} is gone: {error}", self.name)))?;
            total +=
                charged(&text).ok_or_else(|| Failure(format!("cannot read /proc/{id}/stat")))?;
            let children =
                fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
            open.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
        Ok(total)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx's master takes its worker with it at the end; the signal that cannot be caught would leave it.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// utime and stime of a line of `/proc/PID/stat`, whose ticks are 1/100 s on Linux.
fn charged(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}

/// Where Debian puts servers, which is in no user's path.
fn program(name: &str) -> PathBuf {
    let place = Path::new("/usr/sbin").join(name);
    if place.exists() {
        place
    } else {
        PathBuf::from(name)
    }
}

fn write(folder: &Path, name: &str, content: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    fs::write(&path, content)
        .map_err(|error| Failure(format!("cannot write {}: {error}", path.display())))?;
    Ok(path)
}

/// An address that was free a moment ago.
fn free_address() -> Result<SocketAddr, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Failure(format!("no free port: {error}")))
}

/// Starts the target: a thread for each connection would be charged to nobody either, but hundreds of them would take the
/// processors from the proxy; so it is one runtime.
fn start_target() -> Result<SocketAddr, Failure> {
    let listener =
        TcpListener::bind("127.0.0.1:0").map_err(|error| Failure(format!("no target: {error}")))?;
    let failed = |error: io::Error| Failure(format!("no target: {error}"));
    let address = listener.local_addr().map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            let answer: Arc<[u8]> = Arc::from(response().into_bytes());
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(answer_all(stream, Arc::clone(&answer)));
            }
        });
    });
    Ok(address)
}

fn response() -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-length: {BODY}\r\n\r\n{}",
        "x".repeat(BODY)
    )
}

async fn answer_all(mut stream: tokio::net::TcpStream, answer: Arc<[u8]>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 8 * 1_024];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(count) if count > 0 => filled += count,
            _ => return,
        }
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

/// Drives a proxy with all connections for that long, and counts the answers.
fn drive(address: SocketAddr, length: Duration) -> Result<u64, Failure> {
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let ready = Arc::new(Barrier::new(2));
    let client = {
        let (stop, answered, ready) =
            (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&ready));
        std::thread::spawn(move || -> io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()?;
            ready.wait();
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..CONNECTIONS {
                    let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                    tasks.spawn(async move { ask_until(address, &stop, &answered).await });
                }
                while let Some(done) = tasks.join_next().await {
                    done.map_err(io::Error::other)??;
                }
                Ok(())
            })
        })
    };
    ready.wait();
    // The one place that waits for real time: it is what is measured.
    let began = Stopwatch::start();
    while began.elapsed() < length && !client.is_finished() {
        std::thread::park_timeout(length.saturating_sub(began.elapsed()));
    }
    stop.store(true, Ordering::Relaxed);
    match client.join() {
        Ok(Ok(())) => Ok(answered.load(Ordering::Relaxed)),
        Ok(Err(error)) => Err(Failure(format!("a client of {address} failed: {error}"))),
        Err(_) => Err(Failure(format!("a client of {address} panicked"))),
    }
}

/// Asks again and again on one connection, and checks that each answer is the target's.
async fn ask_until(address: SocketAddr, stop: &AtomicBool, answered: &AtomicU64) -> io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /path/of/usual?length=1 HTTP/1.1\r\nhost: {address}\r\nuser-agent: benches\r\naccept: */*\r\n\r\n"
    );
    let mut buffer = vec![0; 16 * 1_024];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        loop {
            let count = stream.read(&mut buffer[filled..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += count;
            let head = buffer[..filled]
                .windows(4)
                .position(|end| end == b"\r\n\r\n");
            if head.is_some_and(|head| filled >= head + 4 + BODY) {
                break;
            }
        }
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(io::Error::other("an answer that is not the target's"));
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Is the proxy of this project: serves until it is ended.
///
/// # Errors
/// When the arguments are no two addresses, or the proxy does not start.
pub fn serve(arguments: &[String]) -> Result<(), Failure> {
    let [listen, target] = arguments else {
        return Err(Failure(format!("{SERVE} LISTEN TARGET")));
    };
    let listen: SocketAddr = listen
        .parse()
        .map_err(|error| Failure(format!("{listen}: {error}")))?;
    let config = ProxyConfig {
        attributes: Attributes {
            workers: 1,
            ..Default::default()
        },
        listeners: vec![ListenerConfig {
            name: "http".to_owned(),
            address: Some(listen.ip()),
            port: listen.port(),
            default_actions: vec![ActionConfig::Forward(ForwardConfig::to("web"))],
            ..Default::default()
        }],
        target_groups: vec![TargetGroupConfig {
            name: "web".to_owned(),
            targets: vec![TargetConfig::at(target)],
            ..Default::default()
        }],
        ..Default::default()
    };
    let failed =
        |error: &dyn std::fmt::Display| Failure(format!("the proxy does not start: {error}"));
    let proxy = Proxy::bind(config, Clock::system()).map_err(|error| failed(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    runtime
        .block_on(proxy.run(std::future::pending()))
        .map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_is_read_past_any_name() {
        let line = "12 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(charged(line), Some(Duration::from_secs(2)));
        assert_eq!(charged("12 broken"), None);
    }

    #[test]
    fn a_ratio_is_to_the_better_rival_of_each_round() {
        let cost = |name, rounds: [f64; 3]| Cost {
            name,
            rounds: rounds.to_vec(),
        };
        let costs = [
            cost("a", [2.0, 3.0, 4.0]),
            cost("b", [1.0, 3.0, 4.0]),
            cost("c", [2.0, 2.0, 8.0]),
        ];
        assert_eq!(ratio(&costs, 0), Some(1.5));
        assert_eq!(ratio(&costs[..1], 0), None);
    }
}
