//! The numbers of a listener.

use sim_core::sync::atomic::{AtomicU64, Ordering};

/// The numbers of a [`Pass`](super::Pass), read at one moment. All but the first two count from its making.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassStats {
    /// Connections that are open: `ActiveFlowCount` of TCP and TLS.
    pub active: u64,
    /// UDP flows that are open: `ActiveFlowCount` of UDP.
    pub udp_active: u64,
    /// Connections that were taken: `NewFlowCount` of TCP and TLS.
    pub opened: u64,
    /// Connections that were refused because there were too many: `RejectedFlowCount`.
    pub rejected: u64,
    /// Connections whose header of the PROXY protocol was refused.
    pub prefix_failures: u64,
    /// Connections whose handshake of TLS failed: `ClientTLSNegotiationErrorCount`.
    pub handshake_failures: u64,
    /// Connections for which there was no target, or of all that were tried none was reached.
    pub unserved: u64,
    /// Tries of a target that failed.
    pub connect_failures: u64,
    /// Connections that both sides ended.
    pub finished: u64,
    /// Connections that stood idle for too long.
    pub idle: u64,
    /// Connections that ended because their target went.
    pub terminated: u64,
    /// Connections that ended because they outlived the drain.
    pub cut: u64,
    /// Connections that the client broke: `TCP_Client_Reset_Count`.
    pub client_resets: u64,
    /// Connections that the target broke: `TCP_Target_Reset_Count`.
    pub target_resets: u64,
    /// Resets that were sent of the proxy's own accord: `TCP_ELB_Reset_Count`.
    pub own_resets: u64,
    /// Bytes from clients to targets, datagrams included.
    pub bytes_in: u64,
    /// Bytes from targets to clients, datagrams included.
    pub bytes_out: u64,
    /// UDP flows that were opened: `NewFlowCount` of UDP.
    pub udp_opened: u64,
    /// Datagrams that began no flow because there were too many.
    pub udp_rejected: u64,
    /// Datagrams for which there was no target.
    pub udp_unserved: u64,
    /// UDP flows that ended because they stood idle.
    pub udp_expired: u64,
    /// UDP flows that ended because their target is not there or went.
    pub udp_failed: u64,
    /// Datagrams from clients to targets.
    pub datagrams_in: u64,
    /// Datagrams from targets to clients.
    pub datagrams_out: u64,
    /// Datagrams that a socket did not take at once.
    pub datagrams_dropped: u64,
}

macro_rules! counts {
    ($($name:ident),* $(,)?) => {
        /// The numbers, as they are counted.
        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub(super) $name: Count,)*
        }

        impl Counts {
            pub(super) fn read(&self) -> PassStats {
                PassStats { $($name: self.$name.read(),)* }
            }
        }
    };
}

counts! {
    active, udp_active, opened, rejected, prefix_failures, handshake_failures, unserved, connect_failures, finished,
    idle, terminated, cut, client_resets, target_resets, own_resets, bytes_in, bytes_out, udp_opened, udp_rejected,
    udp_unserved, udp_expired, udp_failed, datagrams_in, datagrams_out, datagrams_dropped,
}

/// One number. Numbers order nothing: each is right by itself.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more that is there, unless there are `limit` already.
    pub(super) fn enter(&self, limit: usize) -> bool {
        let is_free = self.0.fetch_add(1, Ordering::Relaxed) < limit as u64;
        if !is_free {
            self.leave();
        }
        is_free
    }

    /// Counts one less.
    pub(super) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
