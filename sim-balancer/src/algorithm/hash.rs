//! Hashing of keys and of targets: the same values on every machine, in every version.
//!
//! # Algorithm
//!
//! The folded product of wyhash (Wang Yi, "Modern non-cryptographic hash function and pseudorandom number generator",
//! version final 4, public domain): two words are multiplied to 128 bits, whose halves are combined by exclusive or.
//! Short keys are read as wyhash reads them; longer ones go through its loop of 16 bytes only, so that the values of
//! keys above 48 bytes are not wyhash's. Not for secrets: who may choose keys can choose keys that collide.

use super::memory::Memory;
use super::{Ask, Candidate};

/// wyhash's secret words.
const SECRET: [u64; 4] = [
    0x2d35_8dcc_aa6c_78a5,
    0x8bb8_4b93_962e_acc9,
    0x4b33_a62e_d433_d4a3,
    0x4d5a_2da5_1de1_aa47,
];

/// The two halves of the product.
#[inline]
const fn product(a: u64, b: u64) -> (u64, u64) {
    let product = a as u128 * b as u128;
    (product as u64, (product >> 64) as u64)
}

/// The halves of the product, folded.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = product(a, b);
    low ^ high
}

/// Mixes two words into one, each bit of which depends on all of them.
#[inline]
pub(crate) const fn mix(a: u64, b: u64) -> u64 {
    let (low, high) = product(a ^ SECRET[0], b ^ SECRET[1]);
    fold(low ^ SECRET[0], high ^ SECRET[1])
}

/// Spreads a key that a caller made: numbers in a row and the like become unrelated.
#[inline]
pub(crate) const fn spread(key: u64) -> u64 {
    mix(key, SECRET[2])
}

/// What a node draws for a spread key: one multiplication, with another multiplier for each node.
#[inline]
pub(crate) const fn draw(key: u64, node: u64) -> u64 {
    fold(key ^ node, node.rotate_left(32) ^ SECRET[1])
}

/// The place of a spread hash among `count` places, all alike (Lemire, "A fast alternative to the modulo reduction",
/// 2016).
#[inline]
pub(crate) const fn place(hash: u64, count: u64) -> u64 {
    product(hash, count).1
}

/// Hashes a key; [`key_of`](crate::key_of) to users.
#[must_use]
pub(crate) fn hash(key: &[u8]) -> u64 {
    let mut seed = fold(SECRET[0], SECRET[1]);
    let length = key.len();
    let (a, b) = match length {
        0 => (0, 0),
        1..=3 => {
            let first = u64::from(key[0]) << 16;
            let middle = u64::from(key[length / 2]) << 8;
            (first | middle | u64::from(key[length - 1]), 0)
        }
        4..=16 => {
            let apart = (length / 8) * 4;
            (
                four(key, 0) << 32 | four(key, apart),
                four(key, length - 4) << 32 | four(key, length - 4 - apart),
            )
        }
        _ => {
            let mut at = 0;
            while length - at > 16 {
                seed = fold(eight(key, at) ^ SECRET[1], eight(key, at + 8) ^ seed);
                at += 16;
            }
            (eight(key, length - 16), eight(key, length - 8))
        }
    };
    let (a, b) = product(a ^ SECRET[1], b ^ seed);
    fold(a ^ SECRET[0] ^ length as u64, b ^ SECRET[1])
}

/// Four bytes, the lowest first; missing ones are zero.
#[inline]
fn four(key: &[u8], at: usize) -> u64 {
    key[at..]
        .first_chunk()
        .map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
}

/// Eight bytes, the lowest first; missing ones are zero.
#[inline]
fn eight(key: &[u8], at: usize) -> u64 {
    key[at..]
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The key that is asked with; for who has none any.
#[inline]
pub(crate) fn key(ask: &Ask, memory: &Memory) -> u64 {
    ask.key.unwrap_or_else(|| memory.draw())
}

/// The nodes that may be chosen at all, as indexes: those of a weight above zero. In order of their hash, so that
/// who registered first makes no difference.
pub(crate) fn live(nodes: &[Candidate]) -> Box<[u32]> {
    let mut live: Vec<u32> = (0..)
        .zip(nodes)
        .filter(|(_, node)| node.weight > 0)
        .map(|(index, _)| index)
        .collect();
    live.sort_unstable_by_key(|&index| (nodes[index as usize].hash, index));
    live.into_boxed_slice()
}

/// Targets without a balancer, by their hashes and weights.
pub(crate) fn candidates(targets: &[(u64, u32)]) -> Vec<Candidate> {
    (0..)
        .zip(targets)
        .map(|(slot, &(hash, weight))| Candidate {
            slot,
            birth: 0,
            rank: u64::from(slot),
            weight,
            share: 100,
            hash,
            zone: u32::MAX,
        })
        .collect()
}

/// The first that fits, from a place that the key gives on: the last resort of every table.
pub(crate) fn scan(live: &[u32], key: u64, mut fits: impl FnMut(u32) -> bool) -> Option<u32> {
    let start = place(mix(key, SECRET[3]), live.len() as u64) as usize;
    let (before, after) = live.split_at(start.min(live.len()));
    after
        .iter()
        .chain(before)
        .copied()
        .find(|&index| fits(index))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_lengths_hash_apart() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut seen: Vec<u64> = (0..bytes.len())
            .map(|length| hash(&bytes[..length]))
            .collect();
        // One bit of one byte makes a difference, wherever it stands.
        for length in [1, 3, 4, 8, 9, 16, 17, 31, 32, 33, 48, 100] {
            for at in 0..length {
                let mut key = bytes[..length].to_vec();
                key[at] ^= 0x80;
                seen.push(hash(&key));
            }
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn hashes_of_known_keys_do_not_change_between_versions() {
        // Tables of several processes must agree, also while one of them is upgraded.
        assert_eq!(
            [hash(b""), hash(b"a"), hash(b"user 17"), hash(&[7; 40])],
            KNOWN
        );
    }

    const KNOWN: [u64; 4] = [
        10_602_188_539_874_428_322,
        12_460_635_889_546_412_024,
        13_077_734_939_593_318_240,
        5_652_022_218_424_826_135,
    ];

    #[test]
    fn keys_in_a_row_spread_evenly() {
        const PLACES: u64 = 1_000;
        for step in [1_u64, 2, 1 << 20, 1 << 44, 0x0001_0001] {
            let mut counts = [0_u32; PLACES as usize];
            for key in 0..100_000 {
                counts[place(spread(key * step), PLACES) as usize] += 1;
            }
            // Chi-squared over 999 degrees of freedom: 1,200 is five deviations out.
            let chi: f64 = counts
                .iter()
                .map(|&count| (f64::from(count) - 100.0).powi(2) / 100.0)
                .sum();
            assert!((800.0..1_200.0).contains(&chi), "step {step}: {chi}");
        }
    }
}
