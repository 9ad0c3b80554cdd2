//! Expiring iterator tokens for the wire: a cursor as text, which costs the stream no memory.
//!
//! A token holds all that is needed to go on, and a keyed check, so that a changed, invented or foreign one is
//! told apart from one that is only old. In process a [`Cursor`](crate::Cursor) is the better reader: it does not
//! expire.

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};
use sim_core::random::Random;
use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::time::Instant;

use crate::config::StreamConfig;
use crate::cursor::Read;
use crate::error::{IteratorError, ReadError, TokenError};
use crate::message::{Salt, ShardId, StartingPosition};
use crate::records::Records;
use crate::stream::Stream;

/// The layout that this version writes.
const VERSION: u8 = 1;
/// Version, stream, shard, position, whether it floats, when it was made.
const BODY: usize = 1 + 8 + 4 + 8 + 1 + 8;
const CHECK: usize = 16;
const LENGTH: usize = BODY + CHECK;

/// A place in a shard as text of 92 characters, good for
/// [`iterator_lifetime`](StreamConfig::iterator_lifetime): a `ShardIterator`.
///
/// ```
/// use sim_stream::{ByteStream, IteratorToken, PartitionKey, Read, StartingPosition, StreamConfig};
///
/// let stream = ByteStream::new(StreamConfig::new("lines"))?;
/// let placed = stream.try_put_bytes(&PartitionKey::new("host-1")?, b"GET / 200")?;
///
/// let token = stream.iterator(placed.shard_id, StartingPosition::TrimHorizon)?;
/// let back: IteratorToken = token.to_string().parse()?; // over the wire
/// let page = stream.get_records(&back, Read::default())?;
/// assert_eq!(page.records.get(0).map(|record| record.data()), Some(&b"GET / 200"[..]));
/// assert!(page.next.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IteratorToken([u8; LENGTH]);

/// What a token brings: `GetRecords`' answer.
#[derive(Debug)]
#[non_exhaustive]
pub struct RecordsPage<T: Send + Sync + 'static> {
    /// The records.
    pub records: Records<T>,
    /// The token to go on with; `None` at the end of a closed shard (`NextShardIterator`).
    pub next: Option<IteratorToken>,
}

impl<T: Send + Sync + 'static> Stream<T> {
    /// Makes a token for a place in a shard: `GetShardIterator`.
    ///
    /// # Errors
    /// As [`cursor`](Self::cursor).
    pub fn iterator(
        &self,
        shard: ShardId,
        start: StartingPosition,
    ) -> Result<IteratorToken, IteratorError> {
        let shared = self.shared();
        shared.serve_due(shared.clock.now());
        let shard = shared
            .shard(shard)
            .ok_or(IteratorError::UnknownShard { shard_id: shard })?;
        let (position, floats) = shared.position_of(&shard, start)?;
        let place = Place {
            shard: shard.id,
            position,
            floats,
            made: shared.clock.now(),
        };
        Ok(shared.tokens.write(&place))
    }

    /// Reads from a token's place on, and gives the token to go on with: `GetRecords`.
    ///
    /// A token may be used again: it then brings the same records, as long as they are retained.
    ///
    /// # Errors
    /// [`ReadError`]: among others that the token is [not good](ReadError::Token), or that the records at its place were
    /// [trimmed](ReadError::Trimmed); then a new one has to be made.
    pub fn get_records(
        &self,
        token: &IteratorToken,
        read: Read,
    ) -> Result<RecordsPage<T>, ReadError> {
        let shared = self.shared();
        let place = shared.tokens.read(token)?;
        let now = shared.clock.now();
        let age = now - place.made;
        let lifetime = shared.config.iterator_lifetime;
        if age > lifetime {
            return Err(TokenError::Expired { age, lifetime }.into());
        }
        shared.serve_due(now);
        let shard = shared.shard(place.shard).ok_or(TokenError::UnknownShard {
            shard_id: place.shard,
        })?;
        let mut cursor = self.cursor_at(shard, place.position, place.floats);
        let records = cursor.try_read(read)?;
        let next = (!records.is_end()).then(|| {
            shared.tokens.write(&Place {
                position: records.next_position(),
                floats: cursor.floats(),
                made: now,
                ..place
            })
        });
        Ok(RecordsPage { records, next })
    }
}

/// Lower-case hexadecimal digits.
impl fmt::Display for IteratorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for IteratorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IteratorToken({self})")
    }
}

/// Looks at the form alone; the stream looks at the rest.
impl FromStr for IteratorToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != LENGTH || !rest.is_empty() {
            return Err(TokenError::Malformed);
        }
        let mut bytes = [0; LENGTH];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        if bytes[0] == VERSION {
            Ok(Self(bytes))
        } else {
            Err(TokenError::Malformed)
        }
    }
}

/// Upper-case digits are not what [`IteratorToken`] shows, and not taken: a token has one text.
fn digit(character: u8) -> Result<u8, TokenError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(TokenError::Malformed),
    }
}

/// What a token says.
#[derive(Clone, Copy)]
struct Place {
    shard: ShardId,
    position: u64,
    floats: bool,
    made: Instant,
}

/// Writes and reads the tokens of one stream.
pub(crate) struct Tokens {
    stream: u64,
    secret: [u8; 16],
}

impl Tokens {
    /// Streams that are built in the same order, with the same seeds, have the same secrets: the check guards against
    /// mistakes and guesses, not against who knows the program.
    pub(crate) fn new(config: &StreamConfig, salt: Salt) -> Self {
        static BUILT: AtomicU64 = AtomicU64::new(0);
        let serial = BUILT.fetch_add(1, Ordering::Relaxed);
        let mut random =
            Random::new(config.seed ^ u64::from(salt.as_u32()) << 32).fork(&config.name);
        let mut random = Random::new(random.next_u64() ^ serial.rotate_left(32));
        let stream = random.next_u64();
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&random.next_u64().to_be_bytes());
        secret[8..].copy_from_slice(&random.next_u64().to_be_bytes());
        Self { stream, secret }
    }

    fn write(&self, place: &Place) -> IteratorToken {
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.stream.to_be_bytes());
        bytes[9..13].copy_from_slice(&place.shard.number().to_be_bytes());
        bytes[13..21].copy_from_slice(&place.position.to_be_bytes());
        bytes[21] = u8::from(place.floats);
        bytes[22..30].copy_from_slice(&place.made.as_nanos().to_be_bytes());
        let check = self.check(&bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&check);
        IteratorToken(bytes)
    }

    fn read(&self, token: &IteratorToken) -> Result<Place, TokenError> {
        let bytes = &token.0;
        let number = |range: std::ops::Range<usize>| {
            bytes[range]
                .iter()
                .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        if number(1..9) != self.stream {
            return Err(TokenError::OtherStream);
        }
        if self.check(&bytes[..BODY]) != bytes[BODY..] {
            return Err(TokenError::Malformed);
        }
        let shard = u32::try_from(number(9..13)).unwrap_or(u32::MAX);
        Ok(Place {
            shard: ShardId::new(shard),
            position: number(13..21),
            floats: bytes[21] != 0,
            made: Instant::from_nanos(number(22..30)),
        })
    }

    /// A keyed MD5: all bodies have the same length, so that none is the beginning of another.
    fn check(&self, body: &[u8]) -> [u8; CHECK] {
        Md5::new()
            .chain_update(self.secret)
            .chain_update(body)
            .chain_update(self.secret)
            .finalize()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(&StreamConfig::new("lines"), Salt::new(7))
    }

    fn place() -> Place {
        Place {
            shard: ShardId::new(3),
            position: 0x0102_0304_0506_0708,
            floats: true,
            made: Instant::from_nanos(12_345),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let tokens = tokens();
        let text = tokens.write(&place()).to_string();
        assert_eq!(text.len(), 2 * LENGTH);
        let read = tokens.read(&text.parse().unwrap()).unwrap();
        assert_eq!(
            (read.shard, read.position, read.floats, read.made),
            (place().shard, place().position, true, place().made)
        );
    }

    #[test]
    fn a_change_of_any_bit_is_noticed() {
        let tokens = tokens();
        let token = tokens.write(&place());
        for bit in 0..8 * LENGTH {
            let mut changed = token;
            changed.0[bit / 8] ^= 1 << (bit % 8);
            let outcome = changed
                .to_string()
                .parse::<IteratorToken>()
                .and_then(|token| tokens.read(&token).map(drop));
            let expected = if (8..72).contains(&bit) {
                TokenError::OtherStream
            } else {
                TokenError::Malformed
            };
            assert_eq!(outcome, Err(expected), "bit {bit}");
        }
    }

    #[test]
    fn streams_of_one_name_and_seed_do_not_take_each_others_tokens() {
        let (one, other) = (tokens(), tokens());
        let outcome = other.read(&one.write(&place()));
        assert_eq!(outcome.map(drop), Err(TokenError::OtherStream));
    }
}
