//! Which of many ranges a number lies in.

use super::tickets::Ticket;
use crate::filter::number::Number;

/// Ranges, sorted by where they begin, under a tree of the greatest end; and a few that came lately.
///
/// A look-up is logarithmic in their number, and linear in those that it finds. The latest are looked at one by one;
/// they are merged when they are more than about the square root of the others, so that adding many in a row costs
/// little for each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ranges {
    /// Sorted by `low`.
    sorted: Vec<Range>,
    /// Over `sorted`, padded to a power of two: the greatest end below each node. The root is 1, leaves come last.
    /// A leaf of [`Number::LEAST`] is a range that was taken away.
    ends: Vec<Number>,
    late: Vec<Range>,
    /// How many of `sorted` were taken away.
    gone: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    low: Number,
    high: Number,
    ticket: Ticket,
}

impl Ranges {
    pub(crate) fn len(&self) -> usize {
        self.sorted.len() - self.gone + self.late.len()
    }

    /// Gives the ticket of every range that the number lies in.
    #[inline]
    pub(crate) fn find(&self, number: Number, mut found: impl FnMut(Ticket)) {
        for range in &self.late {
            if range.low <= number && number <= range.high {
                found(range.ticket);
            }
        }
        let until = self.sorted.partition_point(|range| range.low <= number);
        if until > 0 {
            self.descend(1, 0, self.ends.len() / 2, until, number, &mut found);
        }
    }

    /// Looks through the ranges below a node, of which the first so many begin early enough.
    fn descend(
        &self,
        node: usize,
        first: usize,
        width: usize,
        until: usize,
        number: Number,
        found: &mut impl FnMut(Ticket),
    ) {
        if first >= until || self.ends[node] < number {
            return;
        }
        if width == 1 {
            found(self.sorted[first].ticket);
            return;
        }
        let half = width / 2;
        self.descend(node * 2, first, half, until, number, found);
        self.descend(node * 2 + 1, first + half, half, until, number, found);
    }

    pub(crate) fn add(&mut self, low: Number, high: Number, ticket: Ticket) {
        // The least number is the mark of a range that is gone; nothing lies in such a range in any case.
        if high == Number::LEAST {
            return;
        }
        self.late.push(Range { low, high, ticket });
        if self.late.len() > 32 + self.sorted.len().isqrt() {
            self.merge();
        }
    }

    fn merge(&mut self) {
        let ends = &self.ends;
        let leaves = ends.len() / 2;
        let mut at = 0;
        self.sorted.retain(|_| {
            at += 1;
            ends[leaves + at - 1] != Number::LEAST
        });
        self.gone = 0;
        self.sorted.append(&mut self.late);
        self.sorted.sort_by_key(|range| range.low);
        let leaves = self.sorted.len().next_power_of_two();
        self.ends.clear();
        self.ends.resize(leaves * 2, Number::LEAST);
        for (leaf, range) in self.ends[leaves..].iter_mut().zip(&self.sorted) {
            *leaf = range.high;
        }
        for node in (1..leaves).rev() {
            self.ends[node] = self.ends[node * 2].max(self.ends[node * 2 + 1]);
        }
    }

    pub(crate) fn remove(&mut self, low: Number, high: Number, ticket: Ticket) {
        let gone = Range { low, high, ticket };
        if let Some(at) = self.late.iter().position(|&range| range == gone) {
            self.late.swap_remove(at);
            return;
        }
        let leaves = self.ends.len() / 2;
        let from = self.sorted.partition_point(|range| range.low < low);
        let found = self.sorted[from..]
            .iter()
            .take_while(|range| range.low == low)
            .zip(from..)
            .find(|&(&range, at)| range == gone && self.ends[leaves + at] != Number::LEAST);
        let Some((_, at)) = found else {
            return;
        };
        self.gone += 1;
        let mut node = leaves + at;
        self.ends[node] = Number::LEAST;
        while node > 1 {
            node /= 2;
            self.ends[node] = self.ends[node * 2].max(self.ends[node * 2 + 1]);
        }
        if self.gone * 2 > self.sorted.len() {
            self.merge();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(value: i32) -> Number {
        Number::parse(value.to_string().as_bytes()).expect("a number")
    }

    proptest! {
        #[test]
        fn it_finds_the_ranges_that_a_list_finds(
            ranges in proptest::collection::vec((0..50, 0..50), 0..300),
            gone in proptest::collection::vec(any::<bool>(), 300),
            asked in 0..50,
        ) {
            let mut all = Ranges::default();
            for (at, &(low, high)) in ranges.iter().enumerate() {
                all.add(number(low), number(high), Ticket::proof(at as u32));
                if at % 3 == 2 && gone[at] {
                    all.remove(number(low), number(high), Ticket::proof(at as u32));
                }
            }
            for (at, &(low, high)) in ranges.iter().enumerate() {
                if at % 3 != 2 && gone[at] {
                    all.remove(number(low), number(high), Ticket::proof(at as u32));
                }
            }
            let mut found = Vec::new();
            all.find(number(asked), |ticket| found.push(ticket.alternative() as usize));
            found.sort_unstable();
            let expected: Vec<_> = (0..ranges.len())
                .filter(|&at| !gone[at] && (ranges[at].0..=ranges[at].1).contains(&asked))
                .collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(all.len(), (0..ranges.len()).filter(|&at| !gone[at]).count());
        }
    }
}
