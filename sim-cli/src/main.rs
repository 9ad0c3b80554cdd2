//! The `sim` command: what the sim family does, shown on real input.
//!
//! Reading order: [`demo`] (the command), [`flights`] (its input), [`pipeline`] (stream, topic and
//! queues), [`staff`] (who works at a queue), [`world`] (the simulation around them), [`events`] (its log and digest), [`report`] and
//! [`chart`] (what came of it), [`calendar`]; and [`balance`], the proxy.
#![forbid(unsafe_code)]

mod balance;
mod calendar;
mod chart;
mod demo;
mod events;
mod flights;
mod pipeline;
mod report;
mod staff;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Streams, topics, queues, balancers and scaled groups inside one process.
#[derive(Debug, Parser)]
#[command(name = "sim", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Replay a year of flights through a stream, a topic, queues and scaled workers in seconds, and account for every row.
    Demo(demo::Arguments),
    /// Run a load balancer as a file says: HTTP, HTTPS, TCP, TLS and UDP, reloaded without dropping a connection.
    Balance(balance::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Balance(arguments) => balance::run(&arguments),
    }
}
