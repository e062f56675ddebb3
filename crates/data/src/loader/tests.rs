use std::collections::HashSet;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::shard::tests::dataset_of;

/// A dataset whose token at position p is p, so that a window shows where it was cut.
fn counting(n_tokens: u32) -> (TempDir, Arc<Dataset>) {
    let folder = TempDir::new().unwrap();
    let dataset = dataset_of(&folder.path().join("d"), &(0..n_tokens).collect::<Vec<_>>(), 37);
    (folder, Arc::new(dataset))
}

fn config(context_length: usize, global_batch: usize) -> LoaderConfig {
    LoaderConfig { context_length, global_batch, seed: 42 }
}

fn sequences(batch: &Batch) -> Vec<Vec<u32>> {
    batch.inputs_bt.chunks(batch.context_length).map(<[u32]>::to_vec).collect()
}

#[test]
fn targets_are_the_tokens_after_the_inputs() {
    let (_folder, dataset) = counting(500);
    let batch = Loader::new(dataset, config(8, 4)).unwrap().next_batch(100);
    assert_eq!((batch.inputs_bt.len(), batch.targets_bt.len(), batch.n_sequences), (800, 800, 100));
    assert!(batch.inputs_bt.iter().zip(&batch.targets_bt).all(|(input, target)| input + 1 == *target));
    assert!(sequences(&batch).iter().all(|inputs| inputs.windows(2).all(|pair| pair[0] + 1 == pair[1])));
}

#[test]
fn each_epoch_visits_each_of_its_windows_once_in_another_order_from_another_offset() {
    for (n_tokens, context_length) in [(500, 8), (101, 7), (1000, 1), (17, 8), (9, 8)] {
        let (_folder, dataset) = counting(n_tokens);
        let loader = Loader::new(dataset, config(context_length, 1)).unwrap();
        let n = loader.sequences_per_epoch();
        assert!((n + 2) * context_length as u64 > n_tokens as u64 - 1, "{n} windows of {n_tokens} tokens");
        let mut orders = HashSet::new();
        let mut offsets = HashSet::new();
        for epoch in 0..200 {
            let order: Vec<u64> = (epoch * n..(epoch + 1) * n).map(|i| loader.sequence_start(i)).collect();
            let mut sorted = order.clone();
            sorted.sort();
            assert!(sorted.windows(2).all(|pair| pair[0] + context_length as u64 == pair[1]));
            assert!(sorted[0] < context_length as u64);
            assert!(sorted.last().unwrap() + (context_length as u64) < u64::from(n_tokens));
            offsets.insert(sorted[0]);
            orders.insert(order);
        }
        if n > 10 {
            assert_eq!((orders.len(), offsets.len()), (200, context_length));
        }
    }
}

#[test]
fn the_global_order_is_that_of_one_rank_whatever_the_ranks_and_micro_batches() {
    let (_folder, dataset) = counting(400);
    let (global_batch, n_steps) = (8, 20); // more than three epochs
    let mut single = Loader::new(dataset, config(8, global_batch)).unwrap();
    let expected: Vec<Vec<u32>> = (0..n_steps * global_batch as u64).map(|i| single.sequence(i).0).collect();
    assert_eq!(sequences(&single.next_batch(n_steps as usize * global_batch)), expected);

    for world_size in [1, 2, 4] {
        let share = global_batch / world_size;
        for micro_batch in [1, 2, share] {
            let mut ranks: Vec<Loader> =
                (0..world_size).map(|rank| single.for_rank(rank, world_size).unwrap()).collect();
            let mut order = Vec::new();
            for step in 0..n_steps {
                for loader in &mut ranks {
                    assert_eq!(loader.state().sequences_consumed, step * global_batch as u64);
                    for _ in 0..share / micro_batch {
                        order.extend(sequences(&loader.next_batch(micro_batch)));
                    }
                }
            }
            assert_eq!(order, expected, "{world_size} ranks, micro-batches of {micro_batch}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn resuming_anywhere_equals_never_having_stopped(consumed in 0_u64..300, seed in any::<u64>(), more in 1_usize..40) {
        let (_folder, dataset) = counting(300);
        let fresh = Loader::new(dataset, LoaderConfig { seed, ..config(7, 6) }).unwrap();
        let mut unbroken = fresh.clone();
        unbroken.next_batch(consumed as usize);
        let json = serde_json::to_string(&unbroken.state()).unwrap();
        prop_assert_eq!(&json, &format!("{{\"sequences_consumed\":{consumed}}}"));

        let mut resumed = fresh.clone();
        resumed.resume(serde_json::from_str(&json).unwrap()).unwrap();
        prop_assert_eq!(resumed.epoch(), consumed / fresh.sequences_per_epoch());
        prop_assert_eq!(resumed.next_batch(more), unbroken.next_batch(more));

        // At the end of a step, another number of ranks may go on.
        let step_end = LoaderState { sequences_consumed: consumed / 6 * 6 };
        for rank in 0..3 {
            let mut loader = fresh.for_rank(rank, 3).unwrap();
            loader.resume(step_end).unwrap();
            let first = step_end.sequences_consumed + 2 * rank as u64;
            prop_assert_eq!(sequences(&loader.next_batch(2)), vec![fresh.sequence(first).0, fresh.sequence(first + 1).0]);
        }
    }
}

#[test]
fn another_seed_gives_another_order() {
    let (_folder, dataset) = counting(5000);
    let first = Loader::new(Arc::clone(&dataset), config(8, 1)).unwrap().next_batch(50);
    let second = Loader::new(dataset, LoaderConfig { seed: 43, ..config(8, 1) }).unwrap().next_batch(50);
    assert_ne!(first, second);
}

#[test]
fn too_few_tokens_for_one_window_are_named() {
    let (_folder, dataset) = counting(8);
    let error = Loader::new(Arc::clone(&dataset), config(8, 1)).unwrap_err();
    assert!(matches!(error, Error::TooFewTokens { needed: 9, found: 8, context_length: 8, .. }), "{error}");
    let batch = Loader::new(dataset, config(7, 1)).unwrap().next_batch(3);
    assert_eq!(sequences(&batch), vec![(0..7).collect::<Vec<u32>>(); 3]);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let (_folder, dataset) = counting(100);
    for bad in [config(0, 1), config(8, 0)] {
        assert!(matches!(Loader::new(Arc::clone(&dataset), bad), Err(Error::InvalidOption { .. })));
    }
    let loader = Loader::new(dataset, config(8, 6)).unwrap();
    for (rank, world_size) in [(0, 0), (2, 2), (0, 4), (0, 7)] {
        assert!(
            matches!(loader.for_rank(rank, world_size), Err(Error::InvalidOption { .. })),
            "{rank} of {world_size}"
        );
    }
    let error = loader.for_rank(0, 4).unwrap_err();
    assert!(error.to_string().starts_with("global_batch = 6 must be a multiple of the 4 ranks\nhint: "), "{error}");

    let mut rank = loader.for_rank(1, 2).unwrap();
    let error = rank.resume(LoaderState { sequences_consumed: 9 }).unwrap_err();
    assert!(matches!(error, Error::UnalignedState { sequences_consumed: 9, global_batch: 6, world_size: 2 }));
    let error = rank.resume(LoaderState { sequences_consumed: u64::MAX }).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { name: "sequences_consumed", .. }));
    rank.resume(LoaderState { sequences_consumed: (1 << 60) / 6 * 6 }).unwrap();
    rank.next_batch(3);
}
