//! Keys of WireGuard, as its own tools write them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rand::Rng as _;
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

/// A private key. It is shown by [`Private::text`] alone.
pub(super) struct Private([u8; 32]);

impl Private {
    pub(super) fn new() -> Self {
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        Self::of(bytes)
    }

    /// With the bits set that no key may choose, as `wg genkey` does.
    fn of(mut bytes: [u8; 32]) -> Self {
        let [first, .., last] = &mut bytes;
        *first &= 0b1111_1000;
        *last = (*last & 0b0111_1111) | 0b0100_0000;
        Self(bytes)
    }

    pub(super) fn public(&self) -> String {
        BASE64_STANDARD.encode(x25519(self.0, X25519_BASEPOINT_BYTES))
    }

    pub(super) fn text(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alice's of RFC 7748, section 6.1.
    #[test]
    fn a_public_key_is_what_the_standard_says() {
        let bytes = BASE64_STANDARD.decode("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=").unwrap();
        let key = Private::of(bytes.try_into().unwrap());
        assert_eq!(key.public(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
        assert_eq!(key.text(), "cAdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LGo=");
    }

    #[test]
    fn no_two_are_alike() {
        assert_ne!(Private::new().text(), Private::new().text());
    }
}
