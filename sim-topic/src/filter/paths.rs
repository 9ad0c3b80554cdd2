//! The paths that policies speak of, as a tree of names.

use hashbrown::HashTable;

/// The root of every tree.
pub(crate) const ROOT: u32 = 0;

/// A tree of names. A node is a path; a path with rules is a *field* and goes by its node's number.
///
/// Paths are flat: a name with dots is the names between them, so `a.b` in a policy or a body and `b` inside `a`
/// are the same node.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// Invariant: a node's parent is alive; `ROOT` is always.
    nodes: Vec<Node>,
    /// The nodes by parent and name, except for the root.
    edges: HashTable<u32>,
    free: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Node {
    parent: u32,
    name: Box<[u8]>,
    children: u32,
    /// Rules on this path.
    rules: u32,
    /// Those of them that ask for absence.
    absences: u32,
    /// A bit for the length and first byte of each child there ever was: most names of a body are in no policy.
    filter: u64,
}

impl Paths {
    pub(crate) fn new() -> Self {
        let root = Node::new(ROOT, b"");
        Self {
            nodes: vec![root],
            edges: HashTable::new(),
            free: Vec::new(),
        }
    }

    /// One more than the greatest number of a node.
    pub(crate) const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node of a name below a node; dots in the name lead further down.
    #[inline]
    pub(crate) fn walk(&self, from: u32, name: &[u8]) -> Option<u32> {
        if name.contains(&b'.') {
            name.split(|&byte| byte == b'.')
                .try_fold(from, |node, part| self.child(node, part))
        } else {
            self.child(from, name)
        }
    }

    #[inline]
    fn child(&self, parent: u32, name: &[u8]) -> Option<u32> {
        if self.nodes[parent as usize].filter & bit(name) == 0 {
            return None;
        }
        let hash = hash(u64::from(parent), name);
        let node = self.edges.find(hash, |&node| {
            let node = &self.nodes[node as usize];
            node.parent == parent && *node.name == *name
        });
        node.copied()
    }

    /// The node of one name, without dots, below a node; makes it.
    pub(crate) fn grow(&mut self, parent: u32, name: &[u8]) -> u32 {
        if let Some(node) = self.child(parent, name) {
            return node;
        }
        let made = Node::new(parent, name);
        let node = match self.free.pop() {
            Some(node) => {
                self.nodes[node as usize] = made;
                node
            }
            None => {
                self.nodes.push(made);
                (self.nodes.len() - 1) as u32
            }
        };
        let above = &mut self.nodes[parent as usize];
        above.children += 1;
        above.filter |= bit(name);
        let nodes = &self.nodes;
        self.edges
            .insert_unique(hash(u64::from(parent), name), node, |&node| {
                nodes[node as usize].hash()
            });
        node
    }

    /// Makes the nodes of another tree and returns theirs for each of its own. The other is never pruned.
    pub(crate) fn adopt(&mut self, other: &Self) -> Box<[u32]> {
        let mut own = vec![ROOT; other.nodes.len()];
        // A parent is older than its children.
        for (at, node) in other.nodes.iter().enumerate().skip(1) {
            own[at] = self.grow(own[node.parent as usize], &node.name);
        }
        own.into()
    }

    /// Adds a rule to a path.
    pub(crate) fn hold(&mut self, node: u32, absence: bool) {
        let node = &mut self.nodes[node as usize];
        node.rules += 1;
        node.absences += u32::from(absence);
    }

    /// Takes a rule away. Nodes stay until they are [pruned](Self::prune).
    pub(crate) fn release(&mut self, node: u32, absence: bool) {
        let node = &mut self.nodes[node as usize];
        node.rules -= 1;
        node.absences -= u32::from(absence);
    }

    /// Frees a node, and those above it, if nothing is on or below it.
    pub(crate) fn prune(&mut self, mut node: u32) {
        while node != ROOT {
            let gone = &mut self.nodes[node as usize];
            if gone.rules + gone.children > 0 || gone.is_free() {
                return;
            }
            let (parent, hash) = (gone.parent, gone.hash());
            gone.parent = u32::MAX;
            gone.name = Box::default();
            if let Ok(edge) = self.edges.find_entry(hash, |&edge| edge == node) {
                edge.remove();
            }
            self.free.push(node);
            self.nodes[parent as usize].children -= 1;
            node = parent;
        }
    }

    /// Whether the path has rules.
    #[inline]
    pub(crate) fn is_field(&self, node: u32) -> bool {
        self.nodes[node as usize].rules > 0
    }

    /// Whether a rule asks for the absence of the path.
    #[inline]
    pub(crate) fn is_missed(&self, node: u32) -> bool {
        self.nodes[node as usize].absences > 0
    }

    /// Whether paths lead on from here.
    #[inline]
    pub(crate) fn leads_on(&self, node: u32) -> bool {
        self.nodes[node as usize].children > 0
    }
}

impl Node {
    fn new(parent: u32, name: &[u8]) -> Self {
        Self {
            parent,
            name: name.into(),
            children: 0,
            rules: 0,
            absences: 0,
            filter: 0,
        }
    }

    fn hash(&self) -> u64 {
        hash(u64::from(self.parent), &self.name)
    }

    const fn is_free(&self) -> bool {
        self.parent == u32::MAX
    }
}

fn bit(name: &[u8]) -> u64 {
    let first = u64::from(name.first().copied().unwrap_or_default());
    1 << ((first ^ (name.len() as u64) << 3) & 63)
}

/// Hashes a few bytes: a multiplication folded onto itself for every eight of them, as wyhash does.
#[inline]
pub(crate) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const MIX: [u64; 3] = [
        0xa076_1d64_78bd_642f,
        0xe703_7ed1_a0b4_28db,
        0x8ebc_6af0_9c88_c6e3,
    ];
    const fn fold(one: u64, other: u64) -> u64 {
        let product = one as u128 * other as u128;
        product as u64 ^ (product >> 64) as u64
    }
    let mut state = fold(seed ^ MIX[0], MIX[1] ^ bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), MIX[2]);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(last), MIX[2]);
    }
    fold(state, MIX[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dotted_name_is_the_names_between_the_dots() {
        let mut paths = Paths::new();
        let a = paths.grow(ROOT, b"a");
        let b = paths.grow(a, b"b");
        assert_eq!(paths.walk(ROOT, b"a.b"), Some(b));
        assert_eq!(paths.walk(a, b"b"), Some(b));
        assert_eq!(paths.walk(ROOT, b"a."), None);
        assert_eq!(paths.walk(ROOT, b"b"), None);
    }

    #[test]
    fn what_nothing_needs_is_freed_and_used_again() {
        let mut paths = Paths::new();
        for round in 0..10 {
            let a = paths.grow(ROOT, format!("a{round}").as_bytes());
            let b = paths.grow(a, b"b");
            paths.hold(b, true);
            assert!(paths.is_field(b) && paths.is_missed(b) && !paths.is_field(a));
            paths.prune(b);
            assert_eq!(paths.walk(a, b"b"), Some(b), "it is in use");
            paths.release(b, true);
            paths.prune(b);
            assert_eq!(paths.walk(ROOT, format!("a{round}.b").as_bytes()), None);
        }
        assert_eq!((paths.len(), paths.edges.len()), (3, 0));
    }
}
