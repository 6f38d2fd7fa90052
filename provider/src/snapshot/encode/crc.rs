//! The CRC-32 of a whole, from those of its parts.
//!
//! CRCs are polynomials over GF(2): to append a part of `n` bytes is to multiply by `x^(8n)` and to add. The power is
//! kept with each part, so that a part costs one multiplication, however long it is.

/// That of gzip, its bits reversed.
const POLYNOMIAL: u32 = 0xEDB8_8320;
/// The polynomial 1: the highest power is in the lowest bit.
const ONE: u32 = 1 << 31;

/// The checksum of some bytes that stand behind others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crc {
    sum: u32,
    /// `x^(8n)` for `n` bytes.
    power: u32,
}

impl Crc {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        // From x^8 for one byte, by squaring.
        let (mut power, mut square, mut left) = (ONE, ONE >> 8, bytes.len());
        while left > 0 {
            if left & 1 == 1 {
                power = product(power, square);
            }
            square = product(square, square);
            left >>= 1;
        }
        Self { sum: crc.sum(), power }
    }

    /// The checksum of what has checksum `before`, and these bytes behind it.
    pub(super) fn after(self, before: u32) -> u32 {
        product(before, self.power) ^ self.sum
    }
}

fn product(a: u32, mut b: u32) -> u32 {
    let mut sum = 0;
    for bit in (0..32).rev() {
        sum ^= b & ((a >> bit) & 1).wrapping_neg();
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_whole_has_the_checksum_of_its_parts(parts: Vec<Vec<u8>>) {
            let whole = parts.iter().fold(0, |sum, part| Crc::of(part).after(sum));
            prop_assert_eq!(whole, Crc::of(&parts.concat()).after(0));
        }
    }
}
