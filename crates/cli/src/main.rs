//! The one binary: `cupola`.
fn main() {}
