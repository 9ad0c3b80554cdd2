//! What a proxy counts.

use std::time::Duration;

use http::StatusCode;
use sim_core::counter::Counters;

/// How many of the buckets of [`Timing`] there are: powers of two of a microsecond, up to more than an hour.
pub const TIMING_BUCKETS: usize = 33;

/// The places of the counters; see the fields of [`HttpStats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Count {
    Requests,
    NewConnections,
    ClosedConnections,
    RejectedConnections,
    ClientTlsErrors,
    Malformed,
    Elb2xx,
    Elb3xx,
    Elb4xx,
    Elb5xx,
    Elb460,
    Elb500,
    Elb502,
    Elb503,
    Elb504,
    Elb561,
    Target1xx,
    Target2xx,
    Target3xx,
    Target4xx,
    Target5xx,
    TargetConnections,
    TargetConnectionErrors,
    TargetTlsErrors,
    ReceivedBytes,
    SentBytes,
    Grpc,
    Upgrades,
    Fixed,
    Desync,
    DroppedFields,
    Retries,
    Mirrors,
    TargetNanos,
    TargetTimed,
}

const COUNTS: usize = Count::TargetTimed as usize + 1;

/// The counters of a proxy, or of one target group.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counts: Counters<COUNTS>,
    times: Counters<TIMING_BUCKETS>,
}

impl Metrics {
    #[inline]
    pub(crate) fn count(&self, what: Count) {
        self.counts.add(what as usize, 1);
    }

    #[inline]
    pub(crate) fn add(&self, what: Count, n: u64) {
        self.counts.add(what as usize, n);
    }

    /// A response that the proxy made itself.
    pub(crate) fn own_response(&self, status: u16) {
        match status {
            200..=299 => self.count(Count::Elb2xx),
            300..=399 => self.count(Count::Elb3xx),
            400..=499 => self.count(Count::Elb4xx),
            _ => self.count(Count::Elb5xx),
        }
        match status {
            460 => self.count(Count::Elb460),
            500 => self.count(Count::Elb500),
            502 => self.count(Count::Elb502),
            503 => self.count(Count::Elb503),
            504 => self.count(Count::Elb504),
            561 => self.count(Count::Elb561),
            _ => {}
        }
    }

    /// A response of a target.
    pub(crate) fn target_response(&self, status: StatusCode, took: Duration) {
        self.count(match status.as_u16() {
            0..=199 => Count::Target1xx,
            200..=299 => Count::Target2xx,
            300..=399 => Count::Target3xx,
            400..=499 => Count::Target4xx,
            _ => Count::Target5xx,
        });
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.add(Count::TargetNanos, nanos);
        self.count(Count::TargetTimed);
        self.times.add(bucket(nanos), 1);
    }

    pub(crate) fn read(&self) -> HttpStats {
        let sums = self.counts.sums();
        let of = |what: Count| sums[what as usize];
        HttpStats {
            request_count: of(Count::Requests),
            new_connection_count: of(Count::NewConnections),
            active_connection_count: of(Count::NewConnections)
                .saturating_sub(of(Count::ClosedConnections)),
            rejected_connection_count: of(Count::RejectedConnections),
            client_tls_negotiation_error_count: of(Count::ClientTlsErrors),
            malformed_count: of(Count::Malformed),
            http_code_elb_2xx: of(Count::Elb2xx),
            http_code_elb_3xx: of(Count::Elb3xx),
            http_code_elb_4xx: of(Count::Elb4xx),
            http_code_elb_5xx: of(Count::Elb5xx),
            http_code_elb_460: of(Count::Elb460),
            http_code_elb_500: of(Count::Elb500),
            http_code_elb_502: of(Count::Elb502),
            http_code_elb_503: of(Count::Elb503),
            http_code_elb_504: of(Count::Elb504),
            http_code_elb_561: of(Count::Elb561),
            http_code_target_2xx: of(Count::Target2xx),
            http_code_target_3xx: of(Count::Target3xx),
            http_code_target_4xx: of(Count::Target4xx),
            http_code_target_5xx: of(Count::Target5xx),
            target_connection_count: of(Count::TargetConnections),
            target_connection_error_count: of(Count::TargetConnectionErrors),
            target_tls_negotiation_error_count: of(Count::TargetTlsErrors),
            processed_bytes: of(Count::ReceivedBytes) + of(Count::SentBytes),
            received_bytes: of(Count::ReceivedBytes),
            sent_bytes: of(Count::SentBytes),
            grpc_request_count: of(Count::Grpc),
            upgrade_count: of(Count::Upgrades),
            fixed_response_count: of(Count::Fixed),
            desync_request_count: of(Count::Desync),
            dropped_invalid_header_request_count: of(Count::DroppedFields),
            retry_count: of(Count::Retries),
            mirror_count: of(Count::Mirrors),
            target_response_time: Timing {
                count: of(Count::TargetTimed),
                sum: Duration::from_nanos(of(Count::TargetNanos)),
                buckets: self.times.sums(),
            },
        }
    }
}

/// The bucket of a time: the first whose bound is not below it.
fn bucket(nanos: u64) -> usize {
    let micros = nanos.div_ceil(1_000);
    let bits = u64::BITS - micros.saturating_sub(1).leading_zeros();
    (bits as usize).min(TIMING_BUCKETS - 1)
}

/// What HTTP and HTTPS listeners counted since the proxy started; names as in the reference's metrics. Not one atomic snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HttpStats {
    /// Requests that were answered or broken off, whoever answered.
    pub request_count: u64,
    /// Connections that clients opened.
    pub new_connection_count: u64,
    /// Of those, the ones that are open.
    pub active_connection_count: u64,
    /// Connections that were closed at once since too many were open.
    pub rejected_connection_count: u64,
    /// Handshakes that failed.
    pub client_tls_negotiation_error_count: u64,
    /// Connections on which something came that is not HTTP.
    pub malformed_count: u64,
    /// Responses of the proxy's own, 200 to 299.
    pub http_code_elb_2xx: u64,
    /// Responses of the proxy's own, 300 to 399.
    pub http_code_elb_3xx: u64,
    /// Responses of the proxy's own, 400 to 499.
    pub http_code_elb_4xx: u64,
    /// Responses of the proxy's own, 500 and more.
    pub http_code_elb_5xx: u64,
    /// Requests whose client left before the response; no response was sent.
    pub http_code_elb_460: u64,
    /// Responses of the proxy's own: 500.
    pub http_code_elb_500: u64,
    /// Responses of the proxy's own: 502.
    pub http_code_elb_502: u64,
    /// Responses of the proxy's own: 503.
    pub http_code_elb_503: u64,
    /// Responses of the proxy's own: 504.
    pub http_code_elb_504: u64,
    /// Responses of the proxy's own: 561, an identity provider failed.
    pub http_code_elb_561: u64,
    /// Responses of targets, 200 to 299.
    pub http_code_target_2xx: u64,
    /// Responses of targets, 300 to 399.
    pub http_code_target_3xx: u64,
    /// Responses of targets, 400 to 499.
    pub http_code_target_4xx: u64,
    /// Responses of targets, 500 to 599.
    pub http_code_target_5xx: u64,
    /// Connections opened to targets.
    pub target_connection_count: u64,
    /// Connections to targets that could not be opened.
    pub target_connection_error_count: u64,
    /// Handshakes with targets that failed.
    pub target_tls_negotiation_error_count: u64,
    /// Bytes from and to clients.
    pub processed_bytes: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
    /// Requests of gRPC.
    pub grpc_request_count: u64,
    /// Connections that left HTTP by an upgrade.
    pub upgrade_count: u64,
    /// Requests that a rule answered: fixed responses and redirects.
    pub fixed_response_count: u64,
    /// Requests that are not compliant, as the desync mitigation classifies them.
    pub desync_request_count: u64,
    /// Requests of which a field was dropped since its name is not valid.
    pub dropped_invalid_header_request_count: u64,
    /// Tries after the first.
    pub retry_count: u64,
    /// Copies of requests sent to mirrors.
    pub mirror_count: u64,
    /// From the request's last byte to the target until its response began.
    pub target_response_time: Timing,
}

/// Times, counted by powers of two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// How many.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
    /// How many took at most 2^i microseconds and more than half of that; the last one has all that took longer.
    pub buckets: [u64; TIMING_BUCKETS],
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            count: 0,
            sum: Duration::ZERO,
            buckets: [0; TIMING_BUCKETS],
        }
    }
}

impl Timing {
    /// The mean, or zero when there is none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        u32::try_from(self.count)
            .ok()
            .and_then(|count| self.sum.checked_div(count))
            .unwrap_or_else(|| {
                Duration::from_secs_f64(self.sum.as_secs_f64() / self.count.max(1) as f64)
            })
    }

    /// The bound of the bucket in which the quantile `q` (0 to 1) lies: at most twice the true one.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Duration {
        let total: u64 = self.buckets.iter().sum();
        let rank = (q.clamp(0.0, 1.0) * total as f64).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return Duration::from_micros(1 << index);
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_that_holds_it() {
        for (nanos, expected) in [
            (0, 0),
            (1, 0),
            (1_000, 0),
            (1_001, 1),
            (2_000, 1),
            (2_001, 2),
            (4_000, 2),
            (u64::MAX, TIMING_BUCKETS - 1),
        ] {
            assert_eq!(bucket(nanos), expected, "{nanos} ns");
        }
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let metrics = Metrics::default();
        for _ in 0..99 {
            metrics.target_response(StatusCode::OK, Duration::from_micros(3));
        }
        metrics.target_response(StatusCode::BAD_GATEWAY, Duration::from_millis(1));
        let stats = metrics.read();
        let timing = &stats.target_response_time;
        assert_eq!(timing.quantile(0.5), Duration::from_micros(4));
        assert_eq!(timing.quantile(1.0), Duration::from_micros(1_024));
        assert_eq!(
            timing.mean(),
            Duration::from_nanos((99 * 3_000 + 1_000_000) / 100)
        );
        assert_eq!(
            (stats.http_code_target_2xx, stats.http_code_target_5xx),
            (99, 1)
        );
    }
}
