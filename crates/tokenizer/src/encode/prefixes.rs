//! The tokens that a text starts with, fast.

use crate::TokenId;

/// A tree of bytes whose nodes may be tokens, all its edges in one table with open addressing.
#[derive(Clone)]
pub(super) struct Prefixes {
    /// The node behind each two bytes, and `NO_NODE`.
    pairs: Box<[u32]>,
    /// The token of a single byte.
    bytes: [TokenId; 256],
    /// Node times 256 plus byte, and the node behind.
    edges: Box<[[u32; 2]]>,
    /// The token of each node.
    tokens: Vec<TokenId>,
}

const NO_NODE: u32 = u32::MAX;
const NO_TOKEN: TokenId = TokenId::MAX;
/// Nodes, at most: with a byte behind them they fit 32 bits.
const MAX_NODES: usize = 1 << 24;

impl Prefixes {
    /// `None` if there are too many tokens.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = (&'a [u8], TokenId)>) -> Option<Self> {
        let tokens: Vec<(&[u8], TokenId)> = tokens.filter(|(bytes, _)| !bytes.is_empty()).collect();
        let n_bytes: usize = tokens.iter().map(|(bytes, _)| bytes.len()).sum();
        if n_bytes >= MAX_NODES {
            return None;
        }
        let mut prefixes = Self {
            pairs: vec![NO_NODE; 1 << 16].into(),
            bytes: [NO_TOKEN; 256],
            edges: vec![[NO_NODE; 2]; (n_bytes * 2).next_power_of_two()].into(),
            tokens: Vec::new(),
        };
        for (bytes, id) in tokens {
            let node = match *bytes {
                [byte] => {
                    prefixes.bytes[usize::from(byte)] = id;
                    continue;
                }
                [first, second, ref rest @ ..] => {
                    let pair = usize::from(first) << 8 | usize::from(second);
                    if prefixes.pairs[pair] == NO_NODE {
                        prefixes.pairs[pair] = prefixes.add_node();
                    }
                    rest.iter().fold(prefixes.pairs[pair], |node, &byte| prefixes.child_or_new(node, byte))
                }
                [] => continue,
            };
            prefixes.tokens[node as usize] = id;
        }
        prefixes.shrink();
        Some(prefixes)
    }

    fn add_node(&mut self) -> u32 {
        self.tokens.push(NO_TOKEN);
        self.tokens.len() as u32 - 1
    }

    fn child_or_new(&mut self, node: u32, byte: u8) -> u32 {
        let edge = node << 8 | u32::from(byte);
        let slot = slot(&self.edges, edge);
        if self.edges[slot][0] == NO_NODE {
            self.edges[slot] = [edge, self.add_node()];
        }
        self.edges[slot][1]
    }

    /// Makes the table as small as it can be.
    fn shrink(&mut self) {
        let mut edges = vec![[NO_NODE; 2]; (self.tokens.len() * 2 + 2).next_power_of_two()].into_boxed_slice();
        for edge in self.edges.iter().filter(|edge| edge[0] != NO_NODE) {
            let slot = slot(&edges, edge[0]);
            edges[slot] = *edge;
        }
        self.edges = edges;
    }

    /// Puts the tokens that `text` starts with into `found`, shortest first, with their bytes.
    #[inline]
    pub(super) fn find(&self, text: &[u8], found: &mut Vec<(u32, TokenId)>) {
        found.clear();
        let Some((&first, rest)) = text.split_first() else { return };
        let byte = self.bytes[usize::from(first)];
        if byte != NO_TOKEN {
            found.push((1, byte));
        }
        let Some((&second, rest)) = rest.split_first() else { return };
        let mut node = self.pairs[usize::from(first) << 8 | usize::from(second)];
        let mut len = 2;
        let mut rest = rest.iter();
        while node != NO_NODE {
            let token = self.tokens[node as usize];
            if token != NO_TOKEN {
                found.push((len, token));
            }
            let Some(&byte) = rest.next() else { return };
            node = self.edges[slot(&self.edges, node << 8 | u32::from(byte))][1];
            len += 1;
        }
    }
}

/// Where an edge is, or the free slot where it would be.
#[inline(always)]
fn slot(edges: &[[u32; 2]], edge: u32) -> usize {
    let mask = edges.len() - 1;
    let mut at = (u64::from(edge).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & mask;
    while edges[at][0] != edge && edges[at][0] != NO_NODE {
        at = (at + 1) & mask;
    }
    at
}
