use rayon::ThreadPoolBuilder;

use super::*;
use crate::ops::weighted_sum;
use crate::testing::{
    Golden, Tolerance, assert_close, cases, check_gradients, devices, fetched, placed, random, rounded,
};

const LAYOUTS: [RopeLayout; 2] = [RopeLayout::HalfSplit, RopeLayout::Interleaved];

fn heads(h: usize, g: usize, e: usize) -> Heads {
    Heads::of_one_size(h, g, e)
}

/// The definition, in f64.
fn by_definition(qkv: &Tensor, heads: &Heads, rotated: usize, theta: f64, layout: RopeLayout, start: usize) -> Tensor {
    let (e, t) = (heads.head_dim, qkv.shape()[1]);
    let mut y = qkv.f32s().to_vec();
    for (n, row) in y.chunks_exact_mut(heads.qkv_width()).enumerate() {
        for head in row.chunks_exact_mut(e).take(heads.n_heads + heads.n_kv_heads) {
            for pair in 0..rotated / 2 {
                let (i, j) = match layout {
                    RopeLayout::HalfSplit => (pair, pair + rotated / 2),
                    RopeLayout::Interleaved => (2 * pair, 2 * pair + 1),
                };
                let angle = (start + n % t) as f64 / theta.powf(2.0 * pair as f64 / rotated as f64);
                let (x1, x2) = (f64::from(head[i]), f64::from(head[j]));
                head[i] = (x1 * angle.cos() - x2 * angle.sin()) as f32;
                head[j] = (x2 * angle.cos() + x1 * angle.sin()) as f32;
            }
        }
    }
    Tensor::from_f32(qkv.shape(), y)
}

#[test]
fn it_equals_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "rope");
    for (name, layout) in ["half_split", "interleaved"].into_iter().zip(LAYOUTS) {
        let get = |part: &str| golden.get(&format!("{name}.{part}"));
        for device in devices() {
            let table = RopeTable::new(8, 12, 10_000.0, layout).to(device);
            let qkv = get("qkv").to(device).tracked();
            let y = rope(&qkv, &heads(4, 2, 8), &table, 5);
            assert_close(&y, &get("y"), Tolerance::of(DType::F32));
            let gradients = weighted_sum(&y, &get("dy")).backward();
            assert_close(gradients.get(&qkv).unwrap(), &get("dqkv"), Tolerance::of(DType::F32));
        }
    }
}

#[test]
fn it_equals_the_definition() {
    for layout in LAYOUTS {
        for (t, h, g, e, rotated, start) in [
            (1, 1, 1, 2, 2, 0),
            (3, 2, 1, 8, 4, 1),
            (17, 3, 3, 34, 34, 1000),
            (100, 4, 2, 64, 64, 0),
            (5, 1, 1, 7, 0, 3),
        ] {
            let heads = heads(h, g, e);
            let qkv = random(&[2, t, heads.qkv_width()], 1);
            let table = RopeTable::new(rotated, 2000, 500.0, layout);
            let expected = by_definition(&qkv, &heads, rotated, 500.0, layout, start);
            assert_close(&rope(&qkv, &heads, &table, start), &expected, Tolerance { absolute: 1e-6, relative: 1e-6 });
        }
    }
}

#[test]
fn every_device_equals_the_definition_in_its_own_memory_or_not() {
    for case @ (device, dtype) in cases() {
        for layout in LAYOUTS {
            for (b, t, h, g, e, rotated, start) in [
                (0, 3, 1, 1, 8, 8, 0),
                (2, 1, 1, 1, 2, 2, 0),
                (2, 3, 2, 1, 8, 4, 1),
                (2, 17, 3, 3, 34, 34, 1000),
                (3, 100, 4, 2, 64, 64, 0),
                (2, 5, 2, 1, 64, 32, 9),
                (1, 50, 16, 4, 128, 128, 77),
                (2, 5, 1, 1, 7, 0, 3),
                (2, 5, 1, 1, 7, 4, 3),
            ] {
                let heads = heads(h, g, e);
                let [qkv, dy] = [1, 2].map(|stream| rounded(&random(&[b, t, heads.qkv_width()], stream), dtype));
                let table = RopeTable::new(rotated, 2000, 500.0, layout).to(device);
                let expected = by_definition(&qkv, &heads, rotated, 500.0, layout, start);
                let of_y = Tolerance::of(dtype);

                let leaf = placed(&qkv, case).tracked();
                let y = rope(&leaf, &heads, &table, start);
                assert_close(&y, &expected, of_y);
                assert_close(&leaf, &qkv, Tolerance::EXACT);
                let y_in_place = rope_into(placed(&qkv, case), &heads, &table, start);
                assert_close(&y_in_place, &y, Tolerance::EXACT);

                // The gradient is turned back: turned again, it is dy.
                let dqkv = weighted_sum(&y, &placed(&dy, case)).backward().remove(&leaf).unwrap();
                let back = rope(&fetched(&dqkv), &heads, &table.to(Device::Cpu), start);
                assert_close(&back, &dy, Tolerance { absolute: 5e-6, relative: 5e-6 });
            }
        }
    }
}

#[test]
fn on_every_device_gradients_of_activations_are_turned_in_place_in_their_dtype() {
    for case @ (device, dtype) in cases() {
        let (heads, table) = (heads(2, 1, 64), RopeTable::new(64, 40, 100.0, RopeLayout::HalfSplit));
        let [qkv, dy] = [1, 2].map(|stream| rounded(&random(&[2, 20, heads.qkv_width()], stream), dtype));
        let of = |qkv: &Tensor, dy: &Tensor, table: &RopeTable| {
            let leaf = qkv.tracked();
            let inner = crate::ops::add(&leaf, &leaf.detached());
            let y = rope_into(inner, &heads, table, 3);
            let dqkv = weighted_sum(&y, dy).backward().remove(&leaf).unwrap();
            (y, dqkv)
        };
        let (y, dqkv) = of(&placed(&qkv, case), &placed(&dy, case), &table.to(device));
        let (expected_y, expected_dqkv) = of(&qkv, &dy, &table);
        assert_close(
            &y,
            &expected_y,
            Tolerance { absolute: 2.0 * Tolerance::of(dtype).absolute, ..Tolerance::of(dtype) },
        );
        assert_close(&dqkv, &expected_dqkv, Tolerance::of(dtype));
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for layout in LAYOUTS {
        let (heads, table) = (heads(2, 1, 6), RopeTable::new(4, 16, 100.0, layout));
        check_gradients(|[qkv]| rope(qkv, &heads, &table, 3), [random(&[2, 3, heads.qkv_width()], 1)]);
    }
}

#[test]
fn a_shared_gradient_is_not_changed_in_place() {
    let (heads, table) = (heads(1, 1, 4), RopeTable::new(4, 8, 100.0, RopeLayout::HalfSplit));
    check_gradients(
        |[x, y]| crate::ops::add(&rope(x, &heads, &table, 2), &rope(y, &heads, &table, 1)),
        [random(&[1, 3, 12], 1), random(&[1, 3, 12], 2)],
    );
}

#[test]
fn dot_products_depend_on_the_distance_alone() {
    let (heads, table) = (heads(1, 1, 32), RopeTable::new(32, 5000, 10_000.0, RopeLayout::HalfSplit));
    let qkv = random(&[1, 1, heads.qkv_width()], 1);
    let at = |position| rope(&qkv, &heads, &table, position).f32s().to_vec();
    let dot = |q: usize, k: usize| -> f32 { at(q)[..32].iter().zip(&at(k)[32..64]).map(|(q, k)| q * k).sum() };
    for (q, k) in [(10, 3), (2010, 2003), (4999, 4992)] {
        assert!((dot(q, k) - dot(7, 0)).abs() < 1e-4, "positions {q} and {k}");
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (heads, table) = (heads(4, 2, 32), RopeTable::new(32, 500, 10_000.0, RopeLayout::HalfSplit));
    let qkv = random(&[2, 250, heads.qkv_width()], 1);
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| rope(&qkv, &heads, &table, 7))
    };
    for n_threads in [2, 3] {
        assert_close(&on(n_threads), &on(1), Tolerance::EXACT);
    }
}

#[test]
#[should_panic(expected = "rope: positions 6..9 of qkv [1, 3, 12] are behind the table's context length 8")]
fn a_position_behind_the_table_is_refused() {
    let table = RopeTable::new(4, 8, 100.0, RopeLayout::HalfSplit);
    rope(&random(&[1, 3, 12], 1), &heads(1, 1, 4), &table, 6);
}

#[test]
#[should_panic(expected = "rope: the table turns 8 elements of a head, but a head has 4")]
fn a_table_wider_than_a_head_is_refused() {
    let table = RopeTable::new(8, 8, 100.0, RopeLayout::HalfSplit);
    rope(&random(&[1, 3, 12], 1), &heads(1, 1, 4), &table, 0);
}
