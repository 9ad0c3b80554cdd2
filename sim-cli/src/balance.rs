//! `sim balance`: a proxy as a file says.
//!
//! Exit codes: 0 when it was told to stop, or the file is good; 1 when it cannot serve; 2 when the command line or the file
//! cannot be used.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use sim_balancer::proxy::Proxy;
use sim_balancer::proxy::config::{ActionConfig, ListenerConfig, ProxyConfig};
use sim_balancer::proxy::file::{self, Watch};
use sim_core::clock::Clock;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(1);

/// Arguments of `sim balance`.
#[derive(Debug, Args)]
#[command(after_help = "\
The file is TOML; sim-balancer/examples/balance.toml is one with all that matters.
It is read again on SIGHUP, and when it changes: listeners that stay keep their
sockets, and no connection is dropped. A file that cannot be used is reported, and
the former one stays in force. SIGINT and SIGTERM let requests in progress finish.

Exit codes: 0 it was told to stop, or --check found nothing; 1 it cannot serve;
2 the arguments or the file cannot be used.")]
pub(crate) struct Arguments {
    /// The configuration.
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,

    /// Check the file, print what would be done, and end.
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let config = match load(&arguments.file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sim balance: {error}");
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        say(&plan(&config));
        return ExitCode::SUCCESS;
    }
    match serve(config, &arguments.file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sim balance: {}", with_causes(&*error));
            ExitCode::from(1)
        }
    }
}

/// Reads and checks the file; the error tells the file's name too.
fn load(path: &Path) -> Result<ProxyConfig, String> {
    let tell = |error: &dyn Error| format!("{}: {}", path.display(), with_causes(error));
    let config = file::load(path).map_err(|error| tell(&error))?;
    config.check().map_err(|error| tell(&error))?;
    Ok(config)
}

/// An error and what caused it, as far as its own words do not say so already.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        cause = error.source();
    }
    text
}

/// Serves until a signal says that it is enough.
fn serve(config: ProxyConfig, path: &Path) -> Result<(), Box<dyn Error>> {
    // The proxy has threads of its own; this one only waits.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut stop = Stop {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        };
        let clock = Clock::system();
        let mut watch = Watch::new(path);
        let proxy = Proxy::bind(config, clock.clone())?;
        say(&addresses(&proxy));
        let mut served = pin!(proxy.run(stop.told()));
        loop {
            let is_asked = tokio::select! {
                biased;
                end = &mut served => {
                    end?;
                    say("stopped\n");
                    return Ok(());
                }
                _ = hangup.recv() => true,
                () = clock.sleep_until(clock.now() + POLL) => false,
            };
            if watch.has_changed() || is_asked {
                reload(&proxy, path);
            }
        }
    })
}

/// Puts the file in force, or says why it stays as it was.
fn reload(proxy: &Proxy, path: &Path) {
    let outcome = load(path).and_then(|config| {
        let told = |error| format!("{}: {}", path.display(), with_causes(&error));
        proxy.reload(config).map_err(told)
    });
    match outcome {
        Ok(()) => say(&format!("reloaded\n{}", addresses(proxy))),
        Err(error) => eprintln!("sim balance: not reloaded: {error}"),
    }
}

/// What says that it is enough.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Prints, and does not mind when nobody reads.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn addresses(proxy: &Proxy) -> String {
    let lines = proxy.local_addrs().into_iter();
    lines
        .map(|(name, address)| format!("listening: {name} at {address}\n"))
        .collect()
}

/// What a configuration does, for people.
fn plan(config: &ProxyConfig) -> String {
    let mut text = format!("{}\n", config.name);
    for listener in &config.listeners {
        let _ = writeln!(
            text,
            "listener {} at {}, {}",
            listener.label(),
            listener.bind(),
            listener.protocol
        );
        write_rules(&mut text, listener);
    }
    for group in &config.target_groups {
        let _ = writeln!(
            text,
            "target group {}, {}, {:?}",
            group.name, group.protocol, group.algorithm
        );
        for target in &group.targets {
            let _ = write!(text, "  {}", target.address);
            if target.id() != target.address {
                let _ = write!(text, " as {}", target.id());
            }
            if target.weight != 1 {
                let _ = write!(text, ", weight {}", target.weight);
            }
            if let Some(zone) = &target.zone {
                let _ = write!(text, ", zone {zone}");
            }
            text.push('\n');
        }
    }
    text
}

fn write_rules(text: &mut String, listener: &ListenerConfig) {
    let mut rules: Vec<_> = listener.rules.iter().collect();
    rules.sort_by_key(|rule| rule.priority);
    for rule in rules {
        let name = rule.name.as_deref().map(|name| format!(" ({name})"));
        let _ = writeln!(
            text,
            "  {:>5}{}: {}; {}",
            rule.priority,
            name.unwrap_or_default(),
            count(rule.conditions.len(), "condition"),
            actions(&rule.actions)
        );
    }
    let _ = writeln!(text, "  default: {}", actions(&listener.default_actions));
}

fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

/// The actions in their order, each with where it leads.
fn actions(actions: &[ActionConfig]) -> String {
    let mut ordered: Vec<_> = actions.iter().collect();
    ordered.sort_by_key(|action| action.order());
    let words = ordered.into_iter().map(|action| match action {
        ActionConfig::Forward(forward) => {
            let groups = forward.target_groups.iter();
            let groups: Vec<_> = groups
                .map(|group| format!("{} x{}", group.name, group.weight))
                .collect();
            format!("forward to {}", groups.join(", "))
        }
        ActionConfig::FixedResponse(response) => format!("answer {}", response.status_code),
        other => other.as_str().to_owned(),
    });
    words.collect::<Vec<_>>().join("; ")
}
