//! All entries of a vocabulary that a text starts with.

use crate::HashMap;

/// A tree of bytes; some of its nodes are entries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trie<T> {
    /// The node behind a node and a byte.
    children: HashMap<(u32, u8), u32>,
    /// Of each node, the entry that ends there.
    entries: Vec<Option<T>>,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { children: HashMap::default(), entries: vec![None] }
    }
}

impl<T: Copy> Trie<T> {
    /// Of equal keys the last one counts.
    pub(crate) fn insert(&mut self, key: &[u8], entry: T) {
        let mut node = 0;
        for &byte in key {
            let next = self.entries.len() as u32;
            node = *self.children.entry((node, byte)).or_insert(next);
            if node == next {
                self.entries.push(None);
            }
        }
        self.entries[node as usize] = Some(entry);
    }

    /// The entries that `text` starts with, shortest first, with their bytes. An empty key is none.
    pub(crate) fn prefixes(&self, text: &[u8]) -> impl Iterator<Item = (usize, T)> {
        let nodes = text.iter().scan(0, |node, &byte| {
            *node = *self.children.get(&(*node, byte))?;
            Some(*node)
        });
        (1..).zip(nodes).filter_map(|(len, node)| Some((len, self.entries[node as usize]?)))
    }
}
