//! Tells tokenizers apart by what they do, not by how their file is formatted.

use tokenizer::Tokenizer;
use xxhash_rust::xxh3::Xxh3Default;

/// A checksum over every token's bytes, every merge in order and every special token: equal for
/// tokenizers that encode and decode alike, whatever file they came from.
pub fn fingerprint(tokenizer: &Tokenizer) -> String {
    let mut hasher = Xxh3Default::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for id in 0..tokenizer.vocab_size() as u32 {
        field(tokenizer.token_bytes(id).unwrap_or_default());
    }
    for (left, right) in tokenizer.merges() {
        field(left);
        field(right);
    }
    for (token, id) in tokenizer.special_tokens() {
        field(token.as_bytes());
        field(&id.to_le_bytes());
    }
    format!("{:016x}", hasher.digest())
}

#[cfg(test)]
mod tests {
    use super::fingerprint;
    use tokenizer::Tokenizer;

    #[test]
    fn another_special_token_is_another_tokenizer_and_a_reloaded_one_is_the_same() {
        let plain = Tokenizer::bytes();
        let special = Tokenizer::bytes_with_specials(&["<|endoftext|>".to_owned()]).unwrap();
        assert_ne!(fingerprint(&plain), fingerprint(&special));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        special.save(&path).unwrap();
        assert_eq!(fingerprint(&Tokenizer::from_file(&path).unwrap()), fingerprint(&special));
    }
}
