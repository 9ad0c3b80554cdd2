//! Instances as child processes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use sim_core::time::Instant;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::table::{Ending, Signal, Table, next_signal};
use super::{LaunchRefused, Provisioner, Report, Wake};
use crate::config::WarmState;
use crate::message::{InstanceId, LaunchOrder};

/// How long a process may take to end after `SIGTERM`: 10 seconds.
const GRACE: Duration = Duration::from_secs(10);

/// What is run for each instance.
///
/// Besides [`envs`](Self::envs) each process finds the parameters of its template's version in its environment, and
/// `INSTANCE_ID`, `INSTANCE_ZONE`, `INSTANCE_KIND` and `TEMPLATE_VERSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessTemplate {
    /// The program; looked for in `PATH` when it is a bare name.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Additions to the environment, which it inherits.
    pub envs: BTreeMap<OsString, OsString>,
    /// Where it runs. Default: where this process does.
    pub directory: Option<PathBuf>,
    /// Whether its output and errors go to this process's; else nowhere. Default: nowhere. Its input is empty.
    pub inherit_output: bool,
    /// How long it may take to end after `SIGTERM`, before it is killed. Default: 10 s.
    pub grace: Duration,
}

impl ProcessTemplate {
    /// A program without arguments.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            envs: BTreeMap::new(),
            directory: None,
            inherit_output: false,
            grace: GRACE,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    fn command(&self, order: &LaunchOrder) -> Command {
        let output = || {
            if self.inherit_output {
                Stdio::inherit()
            } else {
                Stdio::null()
            }
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(&order.template.parameters)
            .env("INSTANCE_ID", order.id.to_string())
            .env("INSTANCE_ZONE", &*order.zone)
            .env("INSTANCE_KIND", &*order.kind)
            .env("TEMPLATE_VERSION", order.template.number.to_string())
            .envs(&self.envs)
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .kill_on_drop(true);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}

/// A child process, as a roster sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// The instance.
    pub id: InstanceId,
    /// The operating system's number of it.
    pub pid: u32,
}

/// A [`Provisioner`] of child processes.
///
/// A process is asked to end by `SIGTERM`, has its [grace](ProcessTemplate::grace) on the group's clock, and is killed then. In
/// the warm pool a stopped one is ended and run anew, a hibernated one is stopped by `SIGSTOP` and goes on by `SIGCONT`.
/// Dropping the provisioner kills all but what was given away; what was given away is killed with the runtime.
///
/// Each process has a supervisor, a task on the runtime that the provisioner is given. Unix only, for the signals; elsewhere
/// asking to end is killing, and a process cannot hibernate.
pub struct Processes {
    handle: Handle,
    template: ProcessTemplate,
    table: Table<Process>,
}

impl Processes {
    /// Processes of a template, supervised on a runtime whose I/O driver is enabled.
    #[must_use]
    pub fn new(handle: Handle, template: ProcessTemplate) -> Self {
        Self {
            handle,
            table: Table::new(template.grace),
            template,
        }
    }

    /// How many processes run now, those that were given away included.
    #[must_use]
    pub fn running(&self) -> usize {
        self.table.running()
    }

    fn spawn(
        &self,
        order: &LaunchOrder,
        signal: watch::Receiver<Signal>,
        ending: Ending<Process>,
    ) -> Result<Process, LaunchRefused> {
        // tokio registers the child with the runtime that is entered.
        let entered = self.handle.enter();
        let spawned = self.template.command(order).spawn();
        drop(entered);
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                ending.disarm();
                let program = self.template.program.to_string_lossy();
                return Err(LaunchRefused::new(format!("{program}: {error}")));
            }
        };
        let process = Process {
            id: order.id,
            pid: child.id().unwrap_or_default(),
        };
        self.handle.spawn(supervise(child, signal, ending));
        Ok(process)
    }
}

/// Waits for the end of a process, and passes signals on. It alone reaps the child, so that no signal hits another process
/// that got its number.
async fn supervise(mut child: Child, mut signal: watch::Receiver<Signal>, ending: Ending<Process>) {
    let end = loop {
        tokio::select! {
            end = child.wait() => break end,
            told = next_signal(&mut signal) => pass_on(&mut child, told),
        }
    };
    ending.report(match end {
        Ok(status) => describe(status),
        Err(error) => format!("cannot be waited for: {error}"),
    });
}

#[cfg(unix)]
fn pass_on(child: &mut Child, told: Signal) {
    use rustix::process::{Pid, Signal as Sent, kill_process};

    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    let Some(pid) = pid else {
        // It has ended, and the next wait says so.
        return;
    };
    // A process that is no more, or not ours, ends or stays as it is: the wait tells.
    let _ = match told {
        Signal::Run | Signal::Free => kill_process(pid, Sent::CONT),
        Signal::Freeze => kill_process(pid, Sent::STOP),
        Signal::Stop => kill_process(pid, Sent::TERM).and_then(|()| kill_process(pid, Sent::CONT)),
        Signal::Kill => kill_process(pid, Sent::KILL),
    };
}

#[cfg(not(unix))]
fn pass_on(child: &mut Child, told: Signal) {
    if matches!(told, Signal::Stop | Signal::Kill) {
        // It has ended already, or is ended by this.
        let _ = child.start_kill();
    }
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt as _;
        if let Some(signal) = status.signal() {
            return format!("signal {signal}");
        }
    }
    match status.code() {
        Some(code) => format!("exit {code}"),
        None => "ended".to_owned(),
    }
}

impl Provisioner for Processes {
    type Endpoint = Process;

    fn launch(&self, order: &LaunchOrder, _: Instant) -> Result<(), LaunchRefused> {
        self.table.launch(order, |order, signal, ending| {
            self.spawn(order, signal, ending)
        })
    }

    fn terminate(&self, id: InstanceId, now: Instant) {
        self.table.terminate(id, now);
    }

    fn poll(&self, now: Instant) -> Option<Report<Process>> {
        self.table.poll(now)
    }

    fn pause(&self, id: InstanceId, how: WarmState, now: Instant) -> Result<(), LaunchRefused> {
        if cfg!(not(unix)) && how == WarmState::Hibernated {
            return Err(LaunchRefused::new("cannot hibernate on this system"));
        }
        self.table.pause(id, how, now)
    }

    fn resume(&self, id: InstanceId, _: Instant) -> Result<(), LaunchRefused> {
        self.table.resume(id, |order, signal, ending| {
            self.spawn(order, signal, ending)
        })
    }

    fn release(&self, id: InstanceId) {
        self.table.release(id);
    }

    fn adopt(&self, id: InstanceId) -> Result<Process, LaunchRefused> {
        self.table.adopt(id)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.table.next_deadline()
    }

    fn connect(&self, wake: Wake) {
        self.table.connect(wake);
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processes")
            .field("template", &self.template)
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
}
