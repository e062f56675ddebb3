//! The ends of many pre-tokens at once.

use super::Pattern;
#[cfg(target_arch = "x86_64")]
use super::simd;
use super::window::{Classify, Masks, Portable, WINDOW, Window};
use super::{CL100K_VARIANT, LLAMA3_VARIANT, QWEN2_VARIANT, cl100k, deepseek, gpt2, o200k};

/// How many ends are found at a time, at most.
pub(crate) const MAX_ENDS: usize = 256;

/// How many bytes ahead the text is fetched: between two calls there is time enough for the processor to forget
/// that it is read from start to end.
const FETCH_AHEAD: usize = 2048;

/// A pre-token that is longer is cut here; ends fit 32 bits then.
const MAX_BYTES: usize = 1 << 31;

/// Ends of pre-tokens, in bytes from the start of the text.
pub(crate) struct Ends {
    ends: [u32; MAX_ENDS],
    n: usize,
}

impl Ends {
    pub(crate) fn new() -> Self {
        Self { ends: [0; MAX_ENDS], n: 0 }
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[u32] {
        &self.ends[..self.n]
    }
}

/// How a window is cut.
trait Cut {
    /// See [`Window::new`].
    const CASELESS_IS_HARD: bool;
    /// Whether `starts` may leave out what comes behind something hard.
    const ENDS_EARLY: bool = false;

    /// Where pre-tokens start, by [`Window::sure`].
    fn starts(window: &Window<'_>) -> u64;

    /// Bytes of the pre-token at the start of `text`, which is not empty.
    fn pretoken_len(text: &[u8]) -> usize;
}

struct Gpt2;

impl Cut for Gpt2 {
    const CASELESS_IS_HARD: bool = false;

    #[inline(always)]
    fn starts(window: &Window<'_>) -> u64 {
        gpt2::starts(window)
    }

    fn pretoken_len(text: &[u8]) -> usize {
        gpt2::pretoken_len(text)
    }
}

struct O200k;

impl Cut for O200k {
    const CASELESS_IS_HARD: bool = true;
    const ENDS_EARLY: bool = true;

    #[inline(always)]
    fn starts(window: &Window<'_>) -> u64 {
        o200k::starts(window)
    }

    fn pretoken_len(text: &[u8]) -> usize {
        o200k::pretoken_len(text)
    }
}

struct Cl100k;
struct Llama3;
struct Qwen2;

macro_rules! relative_of_cl100k {
    ($name:ident, $variant:ident) => {
        impl Cut for $name {
            const CASELESS_IS_HARD: bool = false;

            #[inline(always)]
            fn starts(window: &Window<'_>) -> u64 {
                cl100k::starts(window, $variant)
            }

            fn pretoken_len(text: &[u8]) -> usize {
                cl100k::pretoken_len(text, $variant)
            }
        }
    };
}

relative_of_cl100k!(Cl100k, CL100K_VARIANT);
relative_of_cl100k!(Llama3, LLAMA3_VARIANT);
relative_of_cl100k!(Qwen2, QWEN2_VARIANT);

impl Pattern {
    /// Finds the ends of the first pre-tokens of `text`: of all, or at least of some hundred.
    ///
    /// # Panics
    /// If the pattern is custom.
    pub(crate) fn cut(&self, text: &[u8], ends: &mut Ends) {
        match self {
            Self::Gpt2 => cut::<Gpt2>(text, ends),
            Self::Cl100k => cut::<Cl100k>(text, ends),
            Self::Llama3 => cut::<Llama3>(text, ends),
            Self::Qwen2 => cut::<Qwen2>(text, ends),
            Self::O200k => cut::<O200k>(text, ends),
            Self::DeepSeekV3 => cut_singly(text, ends, deepseek::pretoken_len),
            Self::Custom(_) => panic!("a custom pattern cuts whole texts"),
        }
    }
}

fn cut_singly(text: &[u8], found: &mut Ends, pretoken_len: impl Fn(&[u8]) -> usize) {
    let (mut at, mut n) = (0, 0);
    while at < text.len().min(MAX_BYTES) && n < MAX_ENDS {
        at += pretoken_len(&text[at..]).min(MAX_BYTES);
        found.ends[n] = at as u32;
        n += 1;
    }
    found.n = n;
}

#[inline(always)]
fn cut<C: Cut>(text: &[u8], ends: &mut Ends) {
    #[cfg(target_arch = "x86_64")]
    {
        // `is_x86_feature_detected!` caches: this is a load and a test.
        if simd::has_avx512() {
            #[allow(unsafe_code)]
            // SAFETY: these instructions are there.
            return unsafe { cut_avx512::<C>(text, ends) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            #[allow(unsafe_code)]
            // SAFETY: these instructions are there.
            return unsafe { cut_avx2::<C>(text, ends) };
        }
    }
    cut_with::<C, Portable>(text, ends);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi1,bmi2,lzcnt,popcnt")]
fn cut_avx512<C: Cut>(text: &[u8], ends: &mut Ends) {
    cut_with::<C, simd::Avx512>(text, ends);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn cut_avx2<C: Cut>(text: &[u8], ends: &mut Ends) {
    cut_with::<C, simd::Avx2>(text, ends);
}

#[inline(always)]
fn cut_with<C: Cut, V: Classify>(text: &[u8], found: &mut Ends) {
    let (mut at, mut n) = (0, 0);
    let ends = &mut found.ends;
    while at < text.len().min(MAX_BYTES) && n + WINDOW <= MAX_ENDS {
        if let Some(bytes) = text[at..].first_chunk::<WINDOW>() {
            V::fetch(bytes.as_ptr().wrapping_add(FETCH_AHEAD));
            let masks: Masks = V::masks(bytes);
            // Where a word begins in any pattern: the next window need not wait for the starts of this one.
            let words = masks.blank & !((masks.spaces | masks.wide) << 1) & (u64::MAX >> 3) & !1;
            if masks.wide == 0 && words != 0 {
                let next = 63 - words.leading_zeros();
                let window = Window::new(bytes, masks, C::CASELESS_IS_HARD);
                let starts = C::starts(&window);
                if !C::ENDS_EARLY || starts >> next & 1 != 0 {
                    let starts = starts & (u64::MAX >> (63 - next)) & !1;
                    let room = ends[n..].first_chunk_mut::<WINDOW>().expect("room for a window");
                    V::write_places(room, at as u32, starts);
                    n += starts.count_ones() as usize;
                    at += next as usize;
                    continue;
                }
            }
            let window = Window::new(bytes, masks, C::CASELESS_IS_HARD);
            let starts = window.sure(C::starts(&window));
            if starts != 0 {
                let room = ends[n..].first_chunk_mut::<WINDOW>().expect("room for a window");
                V::write_places(room, at as u32, starts);
                n += starts.count_ones() as usize;
                at += 63 - starts.leading_zeros() as usize;
                continue;
            }
        }
        at += C::pretoken_len(&text[at..]).min(MAX_BYTES);
        ends[n] = at as u32;
        n += 1;
    }
    found.n = n;
}
