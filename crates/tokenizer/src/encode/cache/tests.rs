use proptest::prelude::*;

use super::*;

/// Some pre-tokens of up to 40 bytes with up to 10 ids.
fn pretokens() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(97_u8..100, 1..40), 0..200)
}

fn ids_of(pretoken: &[u8]) -> Vec<TokenId> {
    (0..1 + pretoken.len() as u32 % 10).map(|i| i * 1000 + pretoken.len() as u32).collect()
}

/// The first pre-tokens of a text as they are found together, and how many they are.
fn find(cache: &Cache, pretokens: &[Vec<u8>], portably: bool) -> (usize, Vec<TokenId>) {
    let text = pretokens.concat();
    let ends: Vec<u32> = pretokens
        .iter()
        .scan(0, |end, pretoken| {
            *end += pretoken.len() as u32;
            Some(*end)
        })
        .collect();
    let (mut keys, mut ids) = (Keys::default(), Vec::new());
    let n = if portably {
        cache.make_keys_portably(&text, &ends, 0, &mut keys);
        cache.hash_long(&text, &ends, &mut keys);
        cache.find_portably(&keys, 0, ends.len(), &mut ids)
    } else {
        cache.make_keys(&text, &ends, &mut keys);
        cache.find(&keys, 0, ends.len(), &mut ids)
    };
    (n, ids)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_was_put_in_is_found_one_by_one_and_together(pretokens in pretokens()) {
        let mut cache = Cache::new().unwrap();
        for pretoken in &pretokens {
            prop_assert!(cache.find_one(pretoken, Key::of(pretoken), &mut Vec::new()) || pretokens.contains(pretoken));
            if !cache.find_one(pretoken, Key::of(pretoken), &mut Vec::new()) {
                cache.insert(pretoken, Key::of(pretoken), &ids_of(pretoken));
            }
        }
        for pretoken in &pretokens {
            let mut ids = Vec::new();
            prop_assert!(cache.find_one(pretoken, Key::of(pretoken), &mut ids));
            prop_assert_eq!(ids, ids_of(pretoken));
        }
        // Together, up to the first that is too long for that.
        let is_short = |pretoken: &&Vec<u8>| pretoken.len() <= SHORT_BYTES;
        let short: Vec<&Vec<u8>> = pretokens.iter().take_while(is_short).collect();
        let expected: Vec<TokenId> = short.iter().flat_map(|pretoken| ids_of(pretoken)).collect();
        for portably in [false, true] {
            let (n, ids) = find(&cache, &pretokens, portably);
            prop_assert_eq!(n, short.len());
            prop_assert_eq!(&ids, &expected);
        }
    }
}

#[test]
fn a_full_cache_forgets_and_stays_right() {
    let mut cache = Cache::new().unwrap();
    let pretoken = |i: u32| i.to_le_bytes();
    for i in 0..1_000_000 {
        cache.insert(&pretoken(i), Key::of(&pretoken(i)), &[i]);
    }
    let mut n_found = 0;
    for i in 0..1_000_000 {
        let mut ids = Vec::new();
        if cache.find_one(&pretoken(i), Key::of(&pretoken(i)), &mut ids) {
            assert_eq!(ids, [i]);
            n_found += 1;
        }
    }
    let n_entries = LINES * WAYS;
    assert!(n_entries / 2 < n_found && n_found <= n_entries, "{n_found}");
}
