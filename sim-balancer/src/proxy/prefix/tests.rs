use proptest::collection::vec;
use proptest::prelude::*;
use sim_core::time::Timestamp;
use tokio::io::{AsyncWriteExt, duplex};

use super::*;

const LIMIT: usize = 1_024;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn proxied() -> Prefix {
    Prefix::Proxied(Addresses::stream(
        address("192.0.2.7:4711"),
        address("198.51.100.1:443"),
    ))
}

fn peer() -> IpAddr {
    "10.0.0.1".parse().unwrap()
}

fn reader(mode: Mode, clock: Clock) -> PrefixReader {
    let config = PrefixConfig {
        mode,
        trusted: vec!["10.0.0.0/8".parse().unwrap()],
        ..PrefixConfig::default()
    };
    PrefixReader::new(config, clock).unwrap()
}

async fn read_of(mode: Mode, bytes: &[u8]) -> Result<(Option<Prefix>, Vec<u8>), ReadPrefixError> {
    let (mut near, far) = duplex(4_096);
    near.write_all(bytes).await.unwrap();
    drop(near);
    let (clock, _time) = Clock::virtual_at(Timestamp::from_unix_nanos(0));
    let (prefix, mut stream) = reader(mode, clock).read(far, peer()).await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    Ok((prefix, rest))
}

#[test]
fn what_the_protocols_text_gives_as_examples_is_read() {
    let lines: [(&[u8], Prefix); 4] = [
        (
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Prefix::Proxied(Addresses::stream(
                address("255.255.255.255:65535"),
                address("255.255.255.255:65535"),
            )),
        ),
        (
            b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            Prefix::Proxied(Addresses::stream(
                address("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
                address("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
            )),
        ),
        (b"PROXY UNKNOWN\r\n", Prefix::Local),
        (
            b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            Prefix::Local,
        ),
    ];
    for (line, prefix) in lines {
        let length = line.len();
        assert_eq!(
            parse(line, LIMIT),
            Ok(Parsed::Complete { prefix, length }),
            "{}",
            line.escape_ascii()
        );
    }
}

#[test]
fn wrong_lines_are_refused() {
    let wrong: [&[u8]; 9] = [
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY \xff\xfe\r\n",
    ];
    for line in wrong {
        assert_eq!(
            parse(line, LIMIT),
            Err(ParsePrefixError::Text),
            "{}",
            line.escape_ascii()
        );
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'a'; 200]].concat();
    assert_eq!(
        parse(&endless[..106], LIMIT),
        Ok(Parsed::Partial),
        "a byte may still end it"
    );
    assert!(matches!(
        parse(&endless[..107], LIMIT),
        Err(ParsePrefixError::TooLong { limit: 107, .. })
    ));
}

#[test]
fn a_header_of_version_2_is_as_the_protocol_has_it() {
    assert_eq!(
        encode(Version::V2, &proxied()),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb"
    );
    assert_eq!(
        encode(Version::V2, &Prefix::Local),
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
    );
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
    assert_eq!(
        parse(header, LIMIT),
        Err(ParsePrefixError::TooLong {
            length: 65_551,
            limit: LIMIT
        })
    );
    assert_eq!(parse(header, MAX_LIMIT), Ok(Parsed::Partial));
}

#[test]
fn a_wrong_version_command_family_or_length_is_refused() {
    for (at, byte) in [(12, 0x31), (12, 0x22), (13, 0x41), (13, 0x13), (15, 11)] {
        let mut header = encode(Version::V2, &proxied());
        header[at] = byte;
        assert_eq!(
            parse(&header, LIMIT),
            Err(ParsePrefixError::Binary),
            "byte {at} as {byte:#x}"
        );
    }
}

/// The header with extensions: kind and value.
fn with_extensions(extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let mut header = encode(Version::V2, &proxied());
    for (kind, value) in extensions {
        header.push(*kind);
        header.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        header.extend_from_slice(value);
    }
    let length = u16::try_from(header.len() - 16).unwrap();
    header[14..16].copy_from_slice(&length.to_be_bytes());
    header
}

#[test]
fn extensions_are_skipped_and_broken_ones_refused() {
    let header = with_extensions(&[(0x01, b"h2"), (0xEA, b"\x01vpce-1")]);
    assert_eq!(
        parse(&header, LIMIT),
        Ok(Parsed::Complete {
            prefix: proxied(),
            length: header.len()
        })
    );
    let mut cut = with_extensions(&[(0x01, b"h2")]);
    let at = cut.len() - 3;
    cut[at] = 9;
    assert_eq!(parse(&cut, LIMIT), Err(ParsePrefixError::Binary));
}

#[test]
fn a_wrong_checksum_is_refused() {
    let wrong = with_extensions(&[(0x03, &[0; 4]), (0x04, b"")]);
    let Err(ParsePrefixError::Checksum { given: 0, computed }) = parse(&wrong, LIMIT) else {
        panic!("{:?}", parse(&wrong, LIMIT));
    };
    let right = with_extensions(&[(0x03, &computed.to_be_bytes()), (0x04, b"")]);
    assert!(matches!(parse(&right, LIMIT), Ok(Parsed::Complete { .. })));
    let mut moved = right;
    moved[16] ^= 1;
    assert!(matches!(
        parse(&moved, LIMIT),
        Err(ParsePrefixError::Checksum { .. })
    ));
}

#[test]
fn one_end_in_the_other_family_makes_both_ipv6() {
    let mixed = Addresses::stream(address("192.0.2.7:1"), address("[2001:db8::1]:2"));
    assert_eq!(mixed.source, address("[::ffff:192.0.2.7]:1"));
    let mapped = Addresses::stream(address("[::ffff:192.0.2.7]:1"), address("192.0.2.8:2"));
    assert_eq!(mapped.source, address("192.0.2.7:1"));
    // Fields that were set by hand.
    let by_hand = Prefix::Proxied(Addresses {
        source: address("192.0.2.7:1"),
        ..mixed
    });
    assert_eq!(
        encode(Version::V1, &by_hand),
        b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n"
    );
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let (clock, _time) = Clock::virtual_at(Timestamp::from_unix_nanos(0));
    let refused = |config| PrefixReader::new(config, clock.clone()).unwrap_err();
    let of = |limit, timeout, mode| PrefixConfig {
        mode,
        limit,
        timeout,
        ..PrefixConfig::default()
    };
    let second = Duration::from_secs(1);
    assert_eq!(
        refused(of(231, second, Mode::Off)),
        PrefixConfigError::Limit { given: 231 }
    );
    assert_eq!(
        refused(of(65_552, second, Mode::Off)),
        PrefixConfigError::Limit { given: 65_552 }
    );
    assert_eq!(
        refused(of(LIMIT, Duration::ZERO, Mode::Off)),
        PrefixConfigError::Timeout
    );
    assert_eq!(
        refused(of(LIMIT, second, Mode::Required)),
        PrefixConfigError::NobodyTrusted
    );
}

#[tokio::test]
async fn what_follows_the_header_is_not_lost() {
    for version in [Version::V1, Version::V2] {
        let bytes = [encode(version, &proxied()).as_slice(), b"hello"].concat();
        let (prefix, rest) = read_of(Mode::Required, &bytes).await.unwrap();
        assert_eq!(prefix, Some(proxied()));
        assert_eq!(rest, b"hello");
    }
}

#[tokio::test]
async fn without_a_header_a_connection_is_refused_or_passed_on_as_the_mode_has_it() {
    assert!(matches!(
        read_of(Mode::Required, b"GET /").await,
        Err(ReadPrefixError::Missing)
    ));
    assert_eq!(
        read_of(Mode::Optional, b"GET /").await.unwrap(),
        (None, b"GET /".to_vec())
    );
    assert_eq!(
        read_of(Mode::Optional, b"").await.unwrap(),
        (None, Vec::new())
    );
    assert!(matches!(
        read_of(Mode::Optional, b"PROXY TC").await,
        Err(ReadPrefixError::Ended { received: 8 })
    ));
}

#[tokio::test]
async fn only_trusted_peers_are_believed() {
    let (clock, _time) = Clock::virtual_at(Timestamp::from_unix_nanos(0));
    let required = reader(Mode::Required, clock.clone());
    let reader = reader(Mode::Optional, clock);
    let bytes = encode(Version::V1, &proxied());
    let (mut near, far) = duplex(4_096);
    near.write_all(&bytes).await.unwrap();
    drop(near);
    let stranger: IpAddr = "192.0.2.1".parse().unwrap();
    let (prefix, mut stream) = reader.read(far, stranger).await.unwrap();
    assert_eq!(prefix, None);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, bytes, "it goes through like any bytes");
    assert!(reader.reads_from("::ffff:10.1.2.3".parse().unwrap()));
    let (_near, far) = duplex(64);
    assert!(matches!(
        required.read(far, stranger).await,
        Err(ReadPrefixError::Untrusted { peer }) if peer == stranger
    ));
}

#[tokio::test]
async fn a_header_that_trickles_ends_with_the_timeout() {
    let (clock, time) = Clock::virtual_at(Timestamp::from_unix_nanos(0));
    let (mut near, far) = duplex(64);
    let slow = async {
        for byte in b"PROXY TCP4 1" {
            near.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
            time.advance(Duration::from_millis(500));
        }
    };
    let reader = reader(Mode::Required, clock);
    let (read, ()) = tokio::join!(reader.read(far, peer()), slow);
    assert!(matches!(
        read,
        Err(ReadPrefixError::Timeout { after }) if after == Duration::from_secs(5)
    ));
}

#[tokio::test]
async fn a_silent_client_without_a_duty_to_send_a_header_is_served_after_the_timeout() {
    let (clock, time) = Clock::virtual_at(Timestamp::from_unix_nanos(0));
    let (near, far) = duplex(64);
    let reader = reader(Mode::Optional, clock);
    let wait = async {
        tokio::task::yield_now().await;
        time.advance(Duration::from_secs(6));
    };
    let (read, ()) = tokio::join!(reader.read(far, peer()), wait);
    assert_eq!(read.unwrap().0, None);
    drop(near);
}

fn addresses() -> impl Strategy<Value = Prefix> {
    let v4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from);
    let v6 = (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from);
    let one = prop_oneof![v4, v6].boxed();
    (one.clone(), one, any::<bool>()).prop_map(|(source, destination, stream)| {
        Prefix::Proxied(if stream {
            Addresses::stream(source, destination)
        } else {
            Addresses::datagram(source, destination)
        })
    })
}

/// Bytes that often look like a header.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let text = "PROXY (TCP4|TCP6|UNKNOWN|UDP4)?[ 0-9.:a-f+-]{0,110}(\r\n|\n|\r)?";
    let binary = vec(any::<u8>(), 0..80)
        .prop_map(|tail| [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &tail].concat());
    let near =
        (addresses(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(prefix, at, byte)| {
            let mut header = encode(Version::V2, &prefix);
            let at = at.index(header.len());
            header[at] = byte;
            header
        });
    prop_oneof![
        vec(any::<u8>(), 0..200),
        text.prop_map(String::into_bytes),
        binary,
        near
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(prefix in addresses(), rest in vec(any::<u8>(), 0..40)) {
        for version in [Version::V1, Version::V2] {
            let header = encode(version, &prefix);
            let expected = match (version, prefix) {
                (Version::V1, Prefix::Proxied(Addresses { transport: Transport::Datagram, .. })) => Prefix::Local,
                _ => prefix,
            };
            let length = header.len();
            for cut in 0..length {
                prop_assert_eq!(parse(&header[..cut], LIMIT), Ok(Parsed::Partial));
            }
            let bytes = [header, rest.clone()].concat();
            prop_assert_eq!(parse(&bytes, LIMIT), Ok(Parsed::Complete { prefix: expected, length }));
        }
    }

    #[test]
    fn a_verdict_stays_whatever_follows(bytes in hostile(), limit in MIN_LIMIT..LIMIT) {
        let mut verdict = None;
        for cut in 0..=bytes.len() {
            let parsed = parse(&bytes[..cut], limit);
            if let Ok(Parsed::Complete { length, .. }) = parsed {
                prop_assert!(length <= cut && length <= limit);
            }
            match (&verdict, parsed) {
                (None, Ok(Parsed::Partial)) => prop_assert!(cut < limit),
                (None, first) => verdict = Some(first),
                (Some(Err(ParsePrefixError::TooLong { .. })), Err(ParsePrefixError::TooLong { .. })) => {}
                (Some(before), now) => prop_assert_eq!(before, &now),
            }
        }
    }
}
