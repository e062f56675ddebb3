use rayon::ThreadPoolBuilder;

use super::*;
use crate::ops::weighted_sum;
use crate::testing::{
    Golden, Tolerance, assert_close, cases, check_gradients, devices, fetched, placed, random, rounded,
};

/// `n` ids below `v`, small ones more often.
fn some_ids(n: usize, v: usize) -> Tensor {
    let ids = random(&[n], 7).f32s().iter().map(|x| ((x * x * v as f32 / 4.0) as u32).min(v as u32 - 1)).collect();
    Tensor::from_u32(&[n], ids)
}

fn gradient(ids: &Tensor, table: &Tensor, dy: &Tensor) -> Tensor {
    let table = table.tracked();
    weighted_sum(&embedding(ids, &table), dy).backward().remove(&table).unwrap()
}

#[test]
fn it_equals_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "embedding");
    for device in devices() {
        let [ids, table, dy] = ["ids", "table", "dy"].map(|name| golden.get(name).to(device));
        assert_close(&embedding(&ids, &table), &golden.get("y"), Tolerance::EXACT);
        assert_close(&gradient(&ids, &table, &dy), &golden.get("dtable"), Tolerance::of(DType::F32));
    }
}

#[test]
fn it_equals_one_lookup_after_the_other() {
    for (n, v, d) in [(1, 1, 1), (3, 17, 100), (1000, 100, 17), (3000, 1000, 100), (100, 3, 1000), (5000, 40_000, 3)] {
        let (ids, table, dy) = (some_ids(n, v), random(&[v, d], 1), random(&[n, d], 2));
        let (mut y, mut dtable) = (Vec::new(), vec![0.0; v * d]);
        for (&id, dy) in ids.u32s().iter().zip(dy.f32s().chunks_exact(d)) {
            let row = id as usize * d..(id as usize + 1) * d;
            y.extend_from_slice(&table.f32s()[row.clone()]);
            dtable[row].iter_mut().zip(dy).for_each(|(dtable, dy)| *dtable += dy);
        }
        assert_close(&embedding(&ids, &table), &Tensor::from_f32(&[n, d], y), Tolerance::EXACT);
        // Exact too: each row of the gradient is summed in the order of the ids.
        assert_close(&gradient(&ids, &table, &dy), &Tensor::from_f32(&[v, d], dtable), Tolerance::EXACT);
    }
}

/// The gradient of a table, summed in f64.
fn expected_gradient(ids: &[u32], dy: &Tensor, v: usize) -> Tensor {
    let d = dy.rows().1;
    let mut dtable = vec![0.0f64; v * d];
    for (&id, dy) in ids.iter().zip(dy.f32s().chunks_exact(d)) {
        let row = &mut dtable[id as usize * d..(id as usize + 1) * d];
        row.iter_mut().zip(dy).for_each(|(dtable, &dy)| *dtable += f64::from(dy));
    }
    Tensor::from_fn(&[v, d], |i| dtable[i] as f32)
}

/// Ids of which one is most frequent, one id alone, all ids in turn, and natural ones.
fn many_kinds_of_ids(n: usize, v: usize) -> Vec<Tensor> {
    let of = |f: &dyn Fn(usize) -> usize| Tensor::from_u32(&[n], (0..n).map(|i| f(i) as u32).collect());
    vec![
        of(&|i| if i % 3 == 0 { i % v } else { v / 2 }),
        of(&|_| v - 1),
        of(&|i| i % v),
        of(&|i| (n - 1 - i) / 7 % v),
        some_ids(n, v),
    ]
}

#[test]
fn every_device_equals_the_sum_in_f64_and_gives_the_same_bits_again() {
    for case @ (device, dtype) in cases() {
        for (n, v, d) in
            [(1, 1, 1), (3, 17, 100), (1000, 100, 17), (5000, 300, 768), (10_000, 70_000, 8), (70, 3, 20_000)]
        {
            let [table, dy] = [(&[v, d], 1), (&[n, d], 2)].map(|(shape, s)| rounded(&random(shape, s), dtype));
            let (table_, dy_) = (placed(&table, case), placed(&dy, case));
            for ids in many_kinds_of_ids(n, v) {
                let ids_ = ids.to(device);
                assert_close(&embedding(&ids_, &table_), &embedding(&ids, &table), Tolerance::EXACT);
                let found = gradient(&ids_, &table_, &dy_);
                assert_eq!(found.dtype(), DType::F32);
                let tolerance = Tolerance { absolute: 2e-7 * n as f32 + 1e-5, relative: 1e-5 };
                assert_close(&found, &expected_gradient(ids.u32s(), &dy, v), tolerance);
                assert_close(&gradient(&ids_, &table_, &dy_), &found, Tolerance::EXACT);
            }
        }
    }
}

#[test]
fn on_every_device_the_gradient_of_a_second_pass_is_added() {
    for case @ (device, dtype) in cases() {
        let (n, v, d) = (500, 40, 48);
        let ids = some_ids(n, v);
        let [table, dy] = [(&[v, d], 1), (&[n, d], 2)].map(|(shape, s)| rounded(&random(shape, s), dtype));
        let table = placed(&table, case).tracked();
        let mut gradients = crate::Gradients::new();
        for _ in 0..2 {
            weighted_sum(&embedding(&ids.to(device), &table), &placed(&dy, case)).backward_into(1.0, &mut gradients);
        }
        let once = expected_gradient(ids.u32s(), &dy, v);
        let expected = Tensor::from_fn(&[v, d], |i| 2.0 * once.f32s()[i]);
        assert_close(gradients.get(&table).unwrap(), &expected, Tolerance { absolute: 2e-4, relative: 1e-5 });
    }
}

#[test]
fn on_every_device_positions_are_added_and_get_their_gradient() {
    for case @ (device, dtype) in cases() {
        for (b, t, v, c, d, start) in
            [(1, 1, 1, 1, 1, 0), (3, 17, 20, 30, 100, 5), (40, 10, 7, 10, 768, 0), (2, 0, 3, 4, 5, 1)]
        {
            let ids = some_ids(b * t, v);
            let ids = Tensor::from_u32(&[b, t], ids.u32s().to_vec());
            let [table, positions, dy] = [(vec![v, d], 1), (vec![c, d], 2), (vec![b, t, d], 3)]
                .map(|(shape, stream)| rounded(&random(&shape, stream), dtype));
            let all = |ids: &Tensor, table: &Tensor, positions: &Tensor, dy: &Tensor| {
                let (table, positions) = (table.tracked(), positions.tracked());
                let y = embedding_with_positions(ids, &table, &positions, start);
                let mut gradients = weighted_sum(&y, dy).backward();
                [y, gradients.remove(&table).unwrap(), gradients.remove(&positions).unwrap()]
            };
            let found = all(&ids.to(device), &placed(&table, case), &placed(&positions, case), &placed(&dy, case));
            let [y, dtable, dpositions] = all(&ids, &table, &positions, &dy);
            assert_close(&found[0], &rounded(&y.detached(), dtype), Tolerance::EXACT);
            let tolerance = Tolerance { absolute: 5e-5, relative: 1e-5 };
            assert_close(&found[1], &dtable, tolerance);
            assert_close(&found[2], &dpositions, tolerance);
        }
    }
}

#[test]
fn on_a_gpu_an_id_outside_of_the_table_is_a_row_of_nan_without_gradient() {
    for case @ (device, _) in cases().into_iter().filter(|(device, _)| *device != Device::Cpu) {
        let ids = Tensor::from_u32(&[4], vec![1, 5, u32::MAX, 0]).to(device);
        let table = placed(&random(&[5, 16], 1), case);
        let y = fetched(&embedding(&ids, &table));
        assert!(y.f32s()[16..48].iter().all(|y| y.is_nan()));
        assert!(y.f32s()[..16].iter().chain(&y.f32s()[48..]).all(|y| y.is_finite()));
        let dtable = fetched(&gradient(&ids, &table, &placed(&Tensor::full(&[4, 16], 1.0), case)));
        let expected = Tensor::from_fn(&[5, 16], |i| if i < 32 { 1.0 } else { 0.0 });
        assert_close(&dtable, &expected, Tolerance::EXACT);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let ids = Tensor::from_u32(&[2, 3], vec![3, 0, 3, 1, 3, 0]);
    check_gradients(|[table]| embedding(&ids, table), [random(&[5, 4], 1)]);
}

#[test]
fn a_table_used_twice_gets_both_gradients() {
    let ids = Tensor::from_u32(&[3], vec![2, 0, 2]);
    check_gradients(
        |[table, x]| crate::ops::linear(&crate::ops::add(&embedding(&ids, table), x), table, None),
        [random(&[4, 5], 1), random(&[3, 5], 2)],
    );
}

#[test]
fn gradients_have_the_same_bits_on_any_number_of_threads() {
    let (ids, table, dy) = (some_ids(3000, 1000), random(&[1000, 48], 1), random(&[3000, 48], 2));
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| gradient(&ids, &table, &dy))
    };
    for n_threads in [2, 3] {
        assert_close(&on(n_threads), &on(1), Tolerance::EXACT);
    }
}

#[test]
fn no_ids_give_no_rows_and_a_zero_gradient() {
    let ids = Tensor::from_u32(&[2, 0], vec![]);
    let table = random(&[3, 4], 1);
    assert_eq!(embedding(&ids, &table).shape(), [2, 0, 4]);
    assert_close(&gradient(&ids, &table, &random(&[2, 0, 4], 2)), &Tensor::full(&[3, 4], 0.0), Tolerance::EXACT);
}

#[test]
#[should_panic(expected = "embedding: id 5 at position 2 of ids [4] is not one of 5 rows of the table")]
fn an_id_outside_of_the_table_is_named() {
    embedding(&Tensor::from_u32(&[4], vec![0, 4, 5, 6]), &random(&[5, 2], 1));
}
