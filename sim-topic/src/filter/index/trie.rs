//! Which of many starts a text has: a tree of pieces, one walk down whatever their number.

use super::tickets::{Ticket, Tickets};

/// The root of every tree.
const ROOT: u32 = 0;

/// A radix tree of byte strings. Given texts backwards, it finds ends.
#[derive(Debug, Clone)]
pub(crate) struct Trie {
    /// Invariant: a node but for the root has tickets or children.
    nodes: Vec<Node>,
    free: Vec<u32>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// What stands between the parent's text and this one; not empty but for the root.
    piece: Box<[u8]>,
    /// The texts that go on from here, by their first byte.
    children: Vec<(u8, u32)>,
    /// Who wants this text as a start.
    tickets: Tickets,
}

impl Node {
    fn child(&self, first: u8) -> Result<usize, usize> {
        self.children
            .binary_search_by_key(&first, |&(byte, _)| byte)
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.tickets.len() == 0
    }
}

impl Trie {
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![Node::default()],
            free: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes[ROOT as usize].is_empty()
    }

    /// Gives the tickets of every text that is a start of this one.
    #[inline]
    pub(crate) fn walk(&self, text: impl Iterator<Item = u8>, mut found: impl FnMut(&[Ticket])) {
        let mut text = text;
        let mut node = &self.nodes[ROOT as usize];
        loop {
            if node.tickets.len() > 0 {
                found(node.tickets.as_slice());
            }
            let Some(first) = text.next() else { return };
            let Ok(at) = node.child(first) else { return };
            node = &self.nodes[node.children[at].1 as usize];
            for &wanted in &node.piece[1..] {
                if text.next() != Some(wanted) {
                    return;
                }
            }
        }
    }

    /// How many tickets stand at exactly this text.
    pub(crate) fn count(&self, text: &[u8]) -> usize {
        let mut rest = text;
        let mut node = &self.nodes[ROOT as usize];
        while let Some(&first) = rest.first() {
            let Ok(at) = node.child(first) else { return 0 };
            node = &self.nodes[node.children[at].1 as usize];
            match rest.strip_prefix(&*node.piece) {
                Some(after) => rest = after,
                None => return 0,
            }
        }
        node.tickets.len()
    }

    pub(crate) fn add(&mut self, text: &[u8], ticket: Ticket) {
        let mut rest = text;
        let mut node = ROOT;
        while let Some(&first) = rest.first() {
            let at = match self.nodes[node as usize].child(first) {
                Ok(at) => at,
                Err(at) => {
                    let leaf = self.make(Node {
                        piece: rest.into(),
                        ..Node::default()
                    });
                    self.nodes[node as usize].children.insert(at, (first, leaf));
                    node = leaf;
                    break;
                }
            };
            let child = self.nodes[node as usize].children[at].1;
            let piece = &self.nodes[child as usize].piece;
            let common = piece
                .iter()
                .zip(rest)
                .take_while(|(one, other)| one == other)
                .count();
            if common == piece.len() {
                node = child;
            } else {
                node = self.split(node, at, common);
            }
            rest = &rest[common..];
        }
        self.nodes[node as usize].tickets.add(ticket);
    }

    /// Puts a node between a node and its child, after so many bytes of the child's piece.
    fn split(&mut self, node: u32, at: usize, common: usize) -> u32 {
        let (first, child) = self.nodes[node as usize].children[at];
        let piece = std::mem::take(&mut self.nodes[child as usize].piece);
        let (upper, lower) = piece.split_at(common);
        let between = self.make(Node {
            piece: upper.into(),
            children: vec![(lower[0], child)],
            tickets: Tickets::default(),
        });
        self.nodes[child as usize].piece = lower.into();
        self.nodes[node as usize].children[at] = (first, between);
        between
    }

    fn make(&mut self, node: Node) -> u32 {
        if let Some(free) = self.free.pop() {
            self.nodes[free as usize] = node;
            return free;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    pub(crate) fn remove(&mut self, text: &[u8], ticket: Ticket) {
        let mut rest = text;
        let mut way = Vec::new();
        let mut node = ROOT;
        while let Some(&first) = rest.first() {
            let Ok(at) = self.nodes[node as usize].child(first) else {
                return;
            };
            way.push((node, at));
            node = self.nodes[node as usize].children[at].1;
            match rest.strip_prefix(&*self.nodes[node as usize].piece) {
                Some(after) => rest = after,
                None => return,
            }
        }
        self.nodes[node as usize].tickets.remove(ticket);
        while self.nodes[node as usize].is_empty() {
            let Some((parent, at)) = way.pop() else {
                return;
            };
            self.nodes[node as usize] = Node::default();
            self.free.push(node);
            self.nodes[parent as usize].children.remove(at);
            node = parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn starts(trie: &Trie, text: &str) -> Vec<u32> {
        let mut all = Vec::new();
        trie.walk(text.bytes(), |tickets| {
            all.extend(tickets.iter().map(|ticket| ticket.alternative()));
        });
        all.sort_unstable();
        all
    }

    proptest! {
        #[test]
        fn it_finds_the_starts_that_a_list_finds(
            texts in proptest::collection::vec("[ab]{0,6}", 0..40),
            gone in proptest::collection::vec(any::<bool>(), 40),
            asked in "[ab]{0,8}",
        ) {
            let mut trie = Trie::new();
            for (number, text) in texts.iter().enumerate() {
                trie.add(text.as_bytes(), Ticket::proof(number as u32));
            }
            for (number, text) in texts.iter().enumerate().filter(|(number, _)| gone[*number]) {
                trie.remove(text.as_bytes(), Ticket::proof(number as u32));
            }
            let expected: Vec<_> = (0..texts.len())
                .filter(|&number| !gone[number] && asked.starts_with(&texts[number]))
                .map(|number| number as u32)
                .collect();
            prop_assert_eq!(starts(&trie, &asked), expected);
            let count = (0..texts.len()).filter(|&number| !gone[number] && texts[number] == asked).count();
            prop_assert_eq!(trie.count(asked.as_bytes()), count);
            for (number, text) in texts.iter().enumerate().filter(|(number, _)| !gone[*number]) {
                trie.remove(text.as_bytes(), Ticket::proof(number as u32));
            }
            prop_assert!(trie.is_empty());
            prop_assert_eq!(trie.free.len() + 1, trie.nodes.len());
        }
    }
}
