//! Draws lots by names: which are drawn is the same on every machine, and nobody need remember it.

/// Whether this name is the one in so many.
pub fn is_drawn(name: &str, one_in: u32) -> bool {
    // FNV-1a: most names are a few bytes, which a checksum with tables would take longer to begin with.
    let sum = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    // Folded and multiplied, since names that differ in their end have sums that differ in few bits.
    let mixed = (sum ^ (sum >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed < u64::MAX / u64::from(one_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_is_drawn_of_names_that_differ_in_little() {
        for name in [|n| format!("h{n}.test"), |n| format!("{n:08x}"), |n| format!("shop-{n}.customers.example.com")] {
            for one_in in [64, 4_000] {
                let drawn = (0..200 * one_in).filter(|n| is_drawn(&name(*n), one_in)).count();
                assert!((150..250).contains(&drawn), "{} of {} by one in {one_in}", drawn, name(0));
            }
        }
    }
}
