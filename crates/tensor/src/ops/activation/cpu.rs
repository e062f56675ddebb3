//! Each function and its derivative on one element, without branches, so that loops over it vectorise.

use super::Activation;
use crate::cpu::element::{Element, convert};
use crate::cpu::simd::{exp, multiversion};
use crate::cpu::threads::for_rows;

/// `y = f(x)`.
pub(super) fn forward<T: Element>(y: &mut [T], x: &[T], activation: Activation) {
    for_rows(y, x, 1, |y, x| forward_task(y, x, activation));
}

multiversion! {
    fn forward_task<T: Element>(y: &mut [T], x: &[T], activation: Activation) {
        match activation {
            Activation::GeluTanh => map(y, x, gelu_tanh),
            Activation::GeluErf => map(y, x, gelu_erf),
            Activation::Silu => map(y, x, silu),
            Activation::Relu => map(y, x, relu),
        }
    }
}

/// `dx = dy · f′(x)`.
pub(super) fn backward<D: Element, T: Element>(dx: &mut [D], dy: &[T], x: &[T], activation: Activation) {
    for_rows(dx, dy, 1, |dx, dy| convert(dx, dy));
    backward_in_place(dx, x, activation);
}

/// `dy ← dy · f′(x)`: the gradient of `y` becomes that of `x`.
pub(super) fn backward_in_place<D: Element, T: Element>(dy: &mut [D], x: &[T], activation: Activation) {
    for_rows(dy, x, 1, |dy, x| backward_task(dy, x, activation));
}

multiversion! {
    fn backward_task<D: Element, T: Element>(dy: &mut [D], x: &[T], activation: Activation) {
        match activation {
            Activation::GeluTanh => zip(dy, x, |dy, x| dy * gelu_tanh_derivative(x)),
            Activation::GeluErf => zip(dy, x, |dy, x| dy * gelu_erf_derivative(x)),
            Activation::Silu => zip(dy, x, |dy, x| dy * silu_derivative(x)),
            Activation::Relu => zip(dy, x, |dy, x| dy * relu_derivative(x)),
        }
    }
}

#[inline(always)]
fn map<T: Element>(y: &mut [T], x: &[T], f: impl Fn(f32) -> f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = T::narrow(f(x.widen()));
    }
}

#[inline(always)]
fn zip<D: Element, T: Element>(y: &mut [D], x: &[T], f: impl Fn(f32, f32) -> f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = D::narrow(f(y.widen(), x.widen()));
    }
}

/// `σ(x)`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x·σ(x)`.
#[inline(always)]
pub(in crate::ops) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// `σ(x)·(1 + x·(1 − σ(x)))`.
#[inline(always)]
pub(in crate::ops) fn silu_derivative(x: f32) -> f32 {
    let e = exp(-x);
    let sigmoid = 1.0 / (1.0 + e);
    sigmoid * (1.0 + x * (e * sigmoid))
}

const SQRT_8_OVER_PI: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// Beyond ±16 every function here equals 0 or x in f32; the bound keeps `x³` finite.
#[inline(always)]
fn bounded(x: f32) -> f32 {
    let x = if x > 16.0 { 16.0 } else { x };
    if x < -16.0 { -16.0 } else { x }
}

/// `½(1 + tanh u) = σ(2u)`, which loses no digits where tanh is near −1.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    let b = bounded(x);
    x * sigmoid(SQRT_8_OVER_PI * (b + CUBIC * b * b * b))
}

/// With `s = σ(2u)`: `s + x·s·(1 − s)·2u′`.
#[inline(always)]
fn gelu_tanh_derivative(x: f32) -> f32 {
    let x = bounded(x);
    let e = exp(-SQRT_8_OVER_PI * (x + CUBIC * x * x * x));
    let s = 1.0 / (1.0 + e);
    s + x * s * (e * s) * (SQRT_8_OVER_PI * (1.0 + 3.0 * CUBIC * x * x))
}

#[inline(always)]
fn gelu_erf(x: f32) -> f32 {
    x * normal_distribution(x).0
}

/// `Φ(x) + x·φ(x)`.
#[inline(always)]
fn gelu_erf_derivative(x: f32) -> f32 {
    let x = bounded(x);
    let (distribution, density) = normal_distribution(x);
    distribution + x * density
}

/// `Φ(x)` and `φ(x)`, the distribution function (within 2e-7 absolute) and density of N(0, 1).
///
/// `1 − Φ(z√2) = ½·erfc(z)` with the approximation of erf by Hastings: Abramowitz and Stegun, 1964, equation 7.1.26.
#[inline(always)]
fn normal_distribution(x: f32) -> (f32, f32) {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let x = bounded(x);
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let gaussian = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let polynomial = 1.061_405_4;
    let polynomial = polynomial * t - 1.453_152;
    let polynomial = polynomial * t + 1.421_413_7;
    let polynomial = polynomial * t - 0.284_496_74;
    let polynomial = polynomial * t + 0.254_829_6;
    let tail = 0.5 * polynomial * t * gaussian;
    (if x < 0.0 { tail } else { 1.0 - tail }, INV_SQRT_2PI * gaussian)
}

/// NaN stays NaN.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn relu_derivative(x: f32) -> f32 {
    if x > 0.0 { 1.0 } else { 0.0 }
}
