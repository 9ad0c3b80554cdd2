//! The hash of the machines' tables.

/// Hashes bytes by folded multiplication (each 64x64-bit product xored into one word), as Wang Yi's wyhash does.
///
/// The seed comes from the caller, so that a publisher who picks ids cannot aim at one bucket without knowing
/// it; no order that anybody sees depends on it.
pub(super) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    const K0: u64 = 0x9e37_79b9_7f4a_7c15;
    const K1: u64 = 0xd1b5_4a32_d192_ed03;
    let mut state = seed ^ (bytes.len() as u64).wrapping_mul(K0);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ K1, u64::from_le_bytes(*word) ^ K0);
    }
    if !rest.is_empty() {
        let last = rest
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        state = fold(state ^ K1, last ^ K0);
    }
    fold(state ^ K0, K1)
}

const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_spreads_short_ids() {
        let mut low: Vec<u64> = (0..4096)
            .map(|n| hash_bytes(9, format!("N{n}").as_bytes()) & 0xffff)
            .collect();
        low.sort_unstable();
        low.dedup();
        assert!(low.len() > 3800, "{} distinct of 4096", low.len());
    }

    #[test]
    fn seed_and_length_count() {
        assert_ne!(hash_bytes(1, b"a"), hash_bytes(2, b"a"));
        assert_ne!(hash_bytes(1, b"a"), hash_bytes(1, b"a\0"));
        assert_ne!(hash_bytes(1, b"12345678"), hash_bytes(1, b"12345678\0"));
    }
}
