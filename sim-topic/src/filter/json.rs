//! Reading JSON as a stream of tokens: spans of the text, never a tree.
//!
//! It takes exactly what `serde_json` reads as an object of values, checked by a property test on valid, broken and
//! random texts: the whole text, well-formed UTF-8, no lone surrogates, at most [`MAX_DEPTH`] containers inside each
//! other, no number beyond the doubles.

/// How many objects and arrays may stand inside each other. Source: `serde_json`'s own bound.
pub(crate) const MAX_DEPTH: u32 = 127;

/// Where a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether it has escapes and must go through [`unescape`].
    pub(crate) escaped: bool,
}

/// A position in a text. Every reader returns nothing when what follows is not JSON.
///
/// It is copied into a local variable where many tokens are read: a position that stays in a register is what makes
/// reading fast, and a reference to it that leaves the function would put it into memory. So the small readers are
/// always inlined, and the rare ones are functions of the text and a position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Begins at the start of a text that is UTF-8.
    pub(crate) const fn new(text: &'a str) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    /// Where the next token is looked for.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// The bytes of a span.
    pub(crate) fn slice(&self, span: Span) -> &'a [u8] {
        self.bytes.get(span.start..span.end).unwrap_or_default()
    }

    /// The next byte that is not white space, without taking it.
    #[inline(always)]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Takes the byte that [`peek`](Self::peek) showed.
    #[inline(always)]
    pub(crate) const fn take(&mut self) {
        self.at += 1;
    }

    /// Takes this byte, after white space.
    #[inline(always)]
    pub(crate) fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.take())
    }

    /// Whether nothing but white space follows.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Takes a member's name and the colon after it.
    #[inline(always)]
    pub(crate) fn name(&mut self) -> Option<Span> {
        self.expect(b'"')?;
        let span = self.string()?;
        self.expect(b':')?;
        Some(span)
    }

    /// Takes the rest of a string whose opening mark was taken.
    #[inline(always)]
    pub(crate) fn string(&mut self) -> Option<Span> {
        let start = self.at;
        let mut at = start;
        let mut escaped = false;
        loop {
            // Eight bytes at a time; most strings end in the first or second eight.
            while let Some(word) = self.bytes.get(at..).and_then(<[u8]>::first_chunk) {
                let marks = marks(u64::from_le_bytes(*word));
                if marks != 0 {
                    at += marks.trailing_zeros() as usize / 8;
                    break;
                }
                at += 8;
            }
            match *self.bytes.get(at)? {
                b'"' => {
                    self.at = at + 1;
                    return Some(Span {
                        start,
                        end: at,
                        escaped,
                    });
                }
                b'\\' => {
                    escaped = true;
                    at = after_escape(self.bytes, at)?;
                }
                0x20.. => at += 1,
                _ => return None,
            }
        }
    }

    /// Takes `true`, `false` or `null`.
    #[inline(always)]
    pub(crate) fn word(&mut self, word: &[u8]) -> Option<()> {
        let end = self.at + word.len();
        (self.bytes.get(self.at..end)? == word).then(|| self.at = end)
    }

    /// Takes a number.
    #[inline(always)]
    pub(crate) fn number(&mut self) -> Option<Span> {
        let start = self.at;
        if self.next_is(b'-') {
            self.at += 1;
        }
        if self.next_is(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut exponent = false;
        if self.next_is(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if self.next_is(b'e') || self.next_is(b'E') {
            self.at += 1;
            if self.next_is(b'+') || self.next_is(b'-') {
                self.at += 1;
            }
            self.digits()?;
            exponent = true;
        }
        let span = Span {
            start,
            end: self.at,
            escaped: false,
        };
        if exponent || self.at - start > 300 {
            is_double(self.slice(span))?;
        }
        Some(span)
    }

    #[inline(always)]
    fn next_is(&self, byte: u8) -> bool {
        self.bytes.get(self.at) == Some(&byte)
    }

    #[inline(always)]
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    /// Takes a value and looks at nothing in it but that it is one. `depth` containers stand around it.
    pub(crate) fn skip(&mut self, depth: u32) -> Option<()> {
        let mut json = *self;
        json.skip_value(depth)?;
        self.at = json.at;
        Some(())
    }

    #[inline(always)]
    fn skip_value(&mut self, depth: u32) -> Option<()> {
        // A bit a container, the innermost lowest: whether it is an object.
        let mut objects = 0_u128;
        let mut level = 0;
        loop {
            match self.peek()? {
                b'"' => {
                    self.take();
                    self.string()?;
                }
                open @ (b'{' | b'[') => {
                    self.take();
                    if depth + level >= MAX_DEPTH {
                        return None;
                    }
                    let is_object = open == b'{';
                    let close = if is_object { b'}' } else { b']' };
                    if self.peek()? == close {
                        self.take();
                    } else {
                        level += 1;
                        objects = objects << 1 | u128::from(is_object);
                        if is_object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                other => self.scalar(other)?,
            }
            loop {
                if level == 0 {
                    return Some(());
                }
                let is_object = objects & 1 == 1;
                match self.peek()? {
                    b',' => {
                        self.take();
                        if is_object {
                            self.name()?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return None,
                }
                self.take();
                level -= 1;
                objects >>= 1;
            }
        }
    }

    #[inline(always)]
    fn scalar(&mut self, first: u8) -> Option<()> {
        match first {
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number().map(|_| ()),
        }
    }
}

/// Where the text goes on after an escape.
#[cold]
fn after_escape(bytes: &[u8], at: usize) -> Option<usize> {
    let (_, length) = character(bytes.get(at..)?)?;
    Some(at + length)
}

/// Whether a number is within the doubles.
#[cold]
fn is_double(text: &[u8]) -> Option<()> {
    let double: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    double.is_finite().then_some(())
}

/// Marks the bytes that end a string, begin an escape or may not stand in one, by their highest bit. Only the lowest mark
/// counts: a borrow can mark bytes above one that is marked rightly.
#[inline]
const fn marks(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    const fn zeros(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word
    }
    let quotes = zeros(word ^ (ONES * 0x22));
    let escapes = zeros(word ^ (ONES * 0x5c));
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    (quotes | escapes | controls) & HIGHS
}

/// The character of an escape, and the bytes that the escape has.
fn character(bytes: &[u8]) -> Option<(char, usize)> {
    let plain = match bytes.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = unit(bytes)?;
            if !(0xd800..0xdc00).contains(&first) {
                return Some((char::from_u32(first)?, 6));
            }
            let second = unit(bytes.get(6..)?)?;
            let low = second.checked_sub(0xdc00).filter(|&low| low < 0x400)?;
            let point = 0x1_0000 + ((first - 0xd800) << 10) + low;
            return Some((char::from_u32(point)?, 12));
        }
        _ => return None,
    };
    Some((plain, 2))
}

/// The number in an escape of four hexadecimal digits.
fn unit(bytes: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = bytes.first_chunk::<6>()? else {
        return None;
    };
    let mut value = 0;
    for &digit in digits {
        value = value << 4 | char::from(digit).to_digit(16)?;
    }
    Some(value)
}

/// Appends the text of an escaped string.
pub(crate) fn unescape(mut bytes: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = bytes.iter().position(|&byte| byte == b'\\') {
        let (plain, rest) = bytes.split_at(at);
        out.extend_from_slice(plain);
        // The scanner has seen that the escape is one.
        let Some((character, length)) = character(rest) else {
            return;
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        bytes = &rest[length..];
    }
    out.extend_from_slice(bytes);
}
