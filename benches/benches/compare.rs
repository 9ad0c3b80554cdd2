//! What the bench files share: a few peers of one pattern, compared by criterion.

use std::time::Duration;

use benches::groups::{self, Scale};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Messages of one iteration: whole batches for each of four senders.
const COUNT: u64 = 20_000;

/// Compares the named peers of a pattern; one that is not built in (a feature) is passed over.
///
/// The question comes first in the name, since two may ask for one pattern.
pub(crate) fn compare(
    criterion: &mut Criterion,
    question: &str,
    group: &str,
    name: &str,
    peers: &[&str],
) {
    let pattern = groups::patterns(group, Scale::Full)
        .unwrap_or_default()
        .into_iter()
        .find(|pattern| pattern.name == name)
        .expect("the group has the pattern");
    let mut bench = criterion.benchmark_group(format!("{question}-{name}"));
    bench
        .throughput(Throughput::Elements(COUNT))
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    for peer in pattern
        .peers
        .iter()
        .filter(|peer| peers.contains(&peer.name.as_str()))
    {
        bench.bench_function(BenchmarkId::from_parameter(&peer.name), |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations)
                    .map(|_| {
                        peer.run(COUNT)
                            .unwrap_or_else(|failure| panic!("{failure}"))
                    })
                    .sum()
            });
        });
    }
    bench.finish();
}
