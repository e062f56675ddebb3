//! Removing the pieces that matter least.

use rayon::prelude::*;

use super::model::{Arc, Model, Words};
use crate::HashMap;

/// Pieces that are required but lost get the worst score, and each a little more than the one before.
const LOST_STEP: f64 = 0.0001;

/// What would be written instead of a piece.
enum Instead {
    /// Other pieces: its string is better cut.
    Nothing,
    /// There is no other way.
    Never,
    /// These.
    Pieces(Vec<u32>),
}

/// At most about `n_kept` pieces: those whose removal would make the text most unlikely.
///
/// The loss is estimated as if each piece were replaced by the best other way to write its string. The probability of a
/// piece is how often it stands in the best cuts.
pub(super) fn pruned(model: &Model, words: &Words, n_kept: usize) -> Vec<(Box<str>, f64)> {
    let instead: Vec<Instead> =
        (0..model.pieces().len() as u32).into_par_iter().map(|piece| instead_of(model, piece)).collect();
    let uses = uses(model, words);
    let n_words: f64 = words.0.iter().map(|&(_, count)| count as f64).sum();
    let n: f64 = uses.iter().sum();
    let log_n = n.ln();
    let mut kept = Vec::new();
    let mut candidates = Vec::new();
    for (i, instead) in instead.iter().enumerate() {
        let here = uses[i];
        match instead {
            Instead::Nothing if here == 0.0 => {}
            Instead::Nothing | Instead::Never => kept.push(i),
            Instead::Pieces(others) if here > 0.0 => {
                let log_n_without = (n + here * (others.len() as f64 - 1.0)).ln();
                let of_others = others.iter().map(|&other| (uses[other as usize] + here).ln() - log_n_without);
                let loss = here / n_words * (here.ln() - log_n - of_others.sum::<f64>());
                candidates.push((loss, i));
            }
            // Its string is worth a piece, but stands in no best cut.
            Instead::Pieces(_) => candidates.push((0.0, i)),
        }
    }
    let pieces = model.pieces();
    candidates.sort_unstable_by(|(a, i), (b, j)| b.total_cmp(a).then_with(|| pieces[*i].0.cmp(&pieces[*j].0)));
    kept.extend(candidates.iter().map(|&(_, i)| i).take(n_kept.saturating_sub(kept.len())));
    // In the order that they had, so that ties do not depend on losses.
    kept.sort_unstable();
    kept.into_iter().map(|i| pieces[i].clone()).collect()
}

fn instead_of(model: &Model, piece: u32) -> Instead {
    let text = &*model.pieces()[piece as usize].0;
    let mut arcs = Vec::new();
    model.arcs(text, &mut arcs);
    let is_whole = |arc: &Arc| arc.start == 0 && arc.end == text.len();
    match Model::best(text, &arcs, Some(piece)) {
        Some((path, _)) if path.iter().any(|arc| is_whole(arc) && arc.piece.is_none()) => Instead::Never,
        None => Instead::Never,
        Some((path, score)) => match Model::best(text, &arcs, None) {
            Some((_, best)) if best > score => Instead::Pieces(path.iter().filter_map(|arc| arc.piece).collect()),
            _ => Instead::Nothing,
        },
    }
}

/// How often each piece stands in the best cuts of all words.
fn uses(model: &Model, words: &Words) -> Vec<f64> {
    let of_lane = |lane: &[(String, u64)]| {
        let mut uses = vec![0.0; model.pieces().len()];
        let mut arcs = Vec::new();
        for (word, count) in lane {
            model.arcs(word, &mut arcs);
            let Some((path, _)) = Model::best(word, &arcs, None) else { continue };
            for piece in path.iter().filter_map(|arc| arc.piece) {
                uses[piece as usize] += *count as f64;
            }
        }
        uses
    };
    let lanes: Vec<Vec<f64>> = words.lanes().map(of_lane).collect();
    let mut sums = vec![0.0; model.pieces().len()];
    for lane in lanes {
        sums.iter_mut().zip(lane).for_each(|(sum, n)| *sum += n);
    }
    sums
}

/// The required characters and the likeliest pieces, `n_wanted` in all, the likeliest first.
pub(super) fn finished(model: &Model, required: &[(char, u64)], n_wanted: usize) -> Vec<(Box<str>, f64)> {
    let scores: HashMap<&str, f64> = model.pieces().iter().map(|(piece, score)| (&**piece, *score)).collect();
    let worst = model.pieces().iter().map(|&(_, score)| score).fold(0.0, f64::min);
    let mut n_lost = 0.0;
    let mut chosen: HashMap<Box<str>, f64> = HashMap::default();
    for (c, _) in required {
        let text = c.to_string();
        let score = scores.get(text.as_str()).copied().unwrap_or_else(|| {
            n_lost += 1.0;
            worst + LOST_STEP * (n_lost - 1.0)
        });
        chosen.insert(text.into(), score);
    }
    let by_score = |(a, x): &(Box<str>, f64), (b, y): &(Box<str>, f64)| y.total_cmp(x).then_with(|| a.cmp(b));
    let mut sorted = model.pieces().to_vec();
    sorted.sort_unstable_by(by_score);
    for (piece, score) in sorted {
        if chosen.len() >= n_wanted {
            break;
        }
        chosen.entry(piece).or_insert(score);
    }
    let mut chosen: Vec<(Box<str>, f64)> = chosen.into_iter().collect();
    chosen.sort_unstable_by(by_score);
    chosen
}
