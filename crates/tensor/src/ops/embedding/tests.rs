use rayon::ThreadPoolBuilder;

use super::*;
use crate::ops::weighted_sum;
use crate::testing::{Golden, Tolerance, assert_close, check_gradients, random};

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
    let (ids, table) = (golden.get("ids"), golden.get("table"));
    assert_close(&embedding(&ids, &table), &golden.get("y"), Tolerance::EXACT);
    assert_close(&gradient(&ids, &table, &golden.get("dy")), &golden.get("dtable"), Tolerance::of(DType::F32));
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
