//! What NVIDIA's data sheets promise, by the name that the driver gives a device.

/// Dense bf16 matrix products with f32 sums, in floating-point operations per second, without sparsity; the longest name
/// that fits counts. From the data sheets of H100, H200, A100, L40S, L4, A10 and the whitepapers of Ada and Ampere.
const BF16: [(&str, f64); 13] = [
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989.4e12),
    ("H200", 989.4e12),
    ("H20", 148e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("A10", 125e12),
    ("RTX 4090", 165.2e12),
    ("RTX 3090", 71e12),
];

/// The peak of the device called `name`, if it is a known one.
pub(super) fn bf16_peak(name: &str) -> Option<f64> {
    let fitting = BF16.iter().filter(|(known, _)| words(name, known));
    fitting.max_by_key(|(known, _)| known.len()).map(|&(_, peak)| peak)
}

/// Whether `known` is in `name` as whole words: `A10` is not in `A100`.
fn words(name: &str, known: &str) -> bool {
    let name = format!(" {} ", name.replace('-', " "));
    name.contains(&format!(" {known} "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart_by_whole_words() {
        assert_eq!(bf16_peak("NVIDIA H100 80GB HBM3"), Some(989.4e12));
        assert_eq!(bf16_peak("NVIDIA H100 PCIe"), Some(756e12));
        assert_eq!(bf16_peak("NVIDIA A100-SXM4-80GB"), Some(312e12));
        assert_eq!(bf16_peak("NVIDIA A10"), Some(125e12));
        assert_eq!(bf16_peak("NVIDIA GeForce RTX 4090"), Some(165.2e12));
        assert_eq!(bf16_peak("Quadro"), None);
    }
}
