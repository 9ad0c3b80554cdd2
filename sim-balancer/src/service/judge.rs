//! What a response tells of its target: [`Judge`].

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use crate::message::Outcome;

/// Says what a response tells of the target that gave it.
pub trait Judge<Res, Err> {
    /// The outcome for the balancer's counts, penalties and ejections.
    fn outcome(&self, result: &Result<Res, Err>) -> Outcome;

    /// The outcome that the trailers of an HTTP response tell, where they tell one and the lease is held
    /// [through the body](super::Balance::through_body): then it counts instead. By default they tell nothing.
    #[must_use]
    fn of_trailers(trailers: &HeaderMap) -> Option<Outcome>
    where
        Self: Sized,
    {
        let _ = trailers;
        None
    }
}

impl<Res, Err, F: Fn(&Result<Res, Err>) -> Outcome> Judge<Res, Err> for F {
    fn outcome(&self, result: &Result<Res, Err>) -> Outcome {
        self(result)
    }
}

/// An `Err` is a failure, everything else a success.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByResult;

impl<Res, Err> Judge<Res, Err> for ByResult {
    fn outcome(&self, result: &Result<Res, Err>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        }
    }
}

/// By the status of an HTTP response, and of a gRPC response: one without a message at once, others
/// [through the body](super::Balance::through_body).
///
/// | response | outcome |
/// | --- | --- |
/// | 429 and 503; gRPC `RESOURCE_EXHAUSTED` (8) | [`Outcome::Overloaded`], with `Retry-After` where it is in seconds |
/// | other 5xx; gRPC `DEADLINE_EXCEEDED` (4), `INTERNAL` (13), `UNAVAILABLE` (14), `DATA_LOSS` (15) | [`Outcome::Failure`] |
/// | an `Err` | [`Outcome::Failure`] |
/// | anything else | [`Outcome::Success`] |
///
/// The gRPC codes are those that tell of the server rather than of the call
/// (<https://grpc.io/docs/guides/status-codes/>).
#[derive(Debug, Clone, Copy, Default)]
pub struct ByStatus;

impl ByStatus {
    /// Judges a response by its head.
    #[must_use]
    pub fn of(status: StatusCode, headers: &HeaderMap) -> Outcome {
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Outcome::Overloaded {
                    retry_after: retry_after(headers),
                }
            }
            status if status.is_server_error() => Outcome::Failure,
            _ => Self::of_grpc(headers).unwrap_or(Outcome::Success),
        }
    }

    /// Judges a gRPC call by its status, which stands in the head or the trailers.
    fn of_grpc(headers: &HeaderMap) -> Option<Outcome> {
        Some(match headers.get("grpc-status")?.as_bytes() {
            b"8" => Outcome::Overloaded { retry_after: None },
            b"4" | b"13" | b"14" | b"15" => Outcome::Failure,
            _ => Outcome::Success,
        })
    }
}

impl<B, Err> Judge<http::Response<B>, Err> for ByStatus {
    fn outcome(&self, result: &Result<http::Response<B>, Err>) -> Outcome {
        match result {
            Ok(response) => Self::of(response.status(), response.headers()),
            Err(_) => Outcome::Failure,
        }
    }

    fn of_trailers(trailers: &HeaderMap) -> Option<Outcome> {
        Self::of_grpc(trailers)
    }
}

/// The header's value where it is a number of seconds; a date would need a wall clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, header: Option<(&'static str, &str)>) -> Outcome {
        let mut response = http::Response::builder().status(status);
        if let Some((name, value)) = header {
            response = response.header(name, value);
        }
        let response = response.body(()).expect("a response");
        ByStatus.outcome(&Ok::<_, ()>(response))
    }

    #[test]
    fn a_status_tells_of_the_server_and_not_of_the_call() {
        assert_eq!(judged(200, None), Outcome::Success);
        assert_eq!(judged(404, None), Outcome::Success);
        assert_eq!(judged(500, None), Outcome::Failure);
        assert_eq!(judged(504, None), Outcome::Failure);
        assert_eq!(judged(200, Some(("grpc-status", "0"))), Outcome::Success);
        assert_eq!(judged(200, Some(("grpc-status", "5"))), Outcome::Success);
        assert_eq!(judged(200, Some(("grpc-status", "14"))), Outcome::Failure);
    }

    #[test]
    fn an_overloaded_server_says_when_to_come_back() {
        let after = |seconds| Outcome::Overloaded {
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(judged(503, Some(("retry-after", "7"))), after(7));
        assert_eq!(judged(429, Some(("retry-after", " 120 "))), after(120));
        for value in ["", "-1", "soon", "99999999999999999999999"] {
            let nothing = Outcome::Overloaded { retry_after: None };
            assert_eq!(
                judged(503, Some(("retry-after", value))),
                nothing,
                "{value:?}"
            );
        }
    }
}
