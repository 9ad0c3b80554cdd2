//! One check by a socket, without its timeout.

use std::net::SocketAddr;

use sim_core::sync::Arc;
use tokio::net::TcpStream;

use super::{grpc, http, tls};
use crate::machine::{CheckProtocol, HealthCheck, Matcher, ProbeResult};

/// How targets are asked: the protocol with all that it needs.
pub(super) struct Prober {
    protocol: Protocol,
    path: String,
    matcher: Matcher,
}

enum Protocol {
    Http,
    Https(Arc<rustls::ClientConfig>),
    Grpc(grpc::Judge),
    Tcp,
    Tls(Arc<rustls::ClientConfig>),
}

impl Prober {
    /// `None` for checks that are the program's affair.
    pub(super) fn new(check: &HealthCheck) -> Option<Self> {
        let protocol = match check.protocol {
            CheckProtocol::Http => Protocol::Http,
            CheckProtocol::Https => Protocol::Https(tls::trusting_everybody()),
            CheckProtocol::Grpc => Protocol::Grpc(grpc::Judge::Status),
            CheckProtocol::GrpcHealth => Protocol::Grpc(grpc::Judge::Serving),
            CheckProtocol::Tcp => Protocol::Tcp,
            CheckProtocol::Tls => Protocol::Tls(tls::trusting_everybody()),
            CheckProtocol::Custom => return None,
        };
        Some(Self {
            protocol,
            path: check.effective_path().to_owned(),
            matcher: check.effective_matcher(),
        })
    }

    /// Asks once.
    pub(super) async fn probe(&self, address: SocketAddr) -> ProbeResult {
        let Ok(stream) = TcpStream::connect(address).await else {
            return ProbeResult::Failed;
        };
        let found = match &self.protocol {
            Protocol::Tcp => Some(ProbeResult::Good),
            Protocol::Tls(config) => {
                let session = tls::connect(config, stream, address).await;
                session.map(|_| ProbeResult::Good)
            }
            Protocol::Http => http::status(stream, address, &self.path)
                .await
                .map(|code| self.judge(code)),
            Protocol::Https(config) => match tls::connect(config, stream, address).await {
                Some(session) => http::status(session, address, &self.path)
                    .await
                    .map(|code| self.judge(code)),
                None => None,
            },
            Protocol::Grpc(judge) => {
                grpc::call(stream, address, &self.path, *judge)
                    .await
                    .map(|answer| match answer {
                        grpc::Answer::Status(code) => self.judge(code),
                        grpc::Answer::NotServing => ProbeResult::Failed,
                    })
            }
        };
        found.unwrap_or(ProbeResult::Failed)
    }

    fn judge(&self, code: u16) -> ProbeResult {
        if self.matcher.matches(code) {
            ProbeResult::Good
        } else {
            ProbeResult::CodeMismatch { code }
        }
    }
}
