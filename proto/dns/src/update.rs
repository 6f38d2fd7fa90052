//! Changes the address of a name by a signed update (RFC 2136, RFC 8945), if it is still what it was.
//!
//! What was is the update's prerequisite, so that the server itself refuses to overwrite what somebody else wrote meanwhile.
//! Its answer counts when it is signed with the same key; where it does not know the key it cannot sign, and that is told.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use hickory_proto::{
    op::{Message, ResponseCode, update_message},
    rr::{
        Name, RData, Record, RecordSet, TSigner,
        rdata::tsig::{TsigAlgorithm, TsigError},
    },
};

use crate::{Asker, Error, shown};

/// Seconds that the two clocks may differ.
const FUDGE: u16 = 300;

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

/// A key that a server knows too. `Debug` hides it.
pub struct Key(TSigner);

impl Key {
    pub fn new(name: &Name, algorithm: Algorithm, secret: Vec<u8>) -> Result<Self, Refused> {
        let algorithm = match algorithm {
            Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            Algorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
            Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        };
        let signer = TSigner::new(secret, algorithm, name.clone(), FUDGE);
        signer.map(Self).map_err(|error| Refused::Unsigned(error.to_string()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", shown(self.0.signer_name()))
    }
}

/// Why an address was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Unasked(#[from] Error),
    #[error("the update cannot be signed: {0}")]
    Unsigned(String),
    #[error("the server does not know the key, or not with this algorithm")]
    UnknownKey,
    #[error("the server knows the key with another secret")]
    WrongSecret,
    #[error("the server's clock and this machine's differ by more than {FUDGE} s")]
    WrongTime,
    #[error("the server's answer is not signed as it should be: {0}")]
    Forged(String),
    #[error("the record is not what it was: somebody else changed it, or the answer came from a wildcard")]
    Changed,
    #[error("the server refuses the update: {0}")]
    Code(ResponseCode),
}

/// An address that takes the place of another, or of nothing.
#[derive(Clone, Debug)]
pub struct Replacement<'r> {
    pub zone: &'r Name,
    pub name: &'r Name,
    pub old: Option<IpAddr>,
    pub new: IpAddr,
    pub ttl: u32,
}

impl Replacement<'_> {
    fn message(&self) -> Message {
        let set = |address: IpAddr| {
            let data = match address {
                IpAddr::V4(address) => RData::A(address.into()),
                IpAddr::V6(address) => RData::AAAA(address.into()),
            };
            RecordSet::from(Record::from_rdata(self.name.clone(), self.ttl, data))
        };
        match self.old {
            Some(old) => update_message::compare_and_swap(set(old), set(self.new), self.zone.clone(), false),
            None => update_message::create(set(self.new), self.zone.clone(), false),
        }
    }

    /// Has the primary server of the zone do it. `now` is the hour, in seconds since 1970.
    pub async fn send(&self, asker: Asker, server: SocketAddr, key: &Key, now: u64) -> Result<(), Refused> {
        if !self.zone.zone_of(self.name) {
            return Err(Error::Name(shown(self.name)).into());
        }
        let mut message = self.message();
        let verifier = message.finalize(&key.0, now).map_err(|error| Refused::Unsigned(error.to_string()))?;
        let (answer, bytes) = asker.by_tcp(server, &message).await?;
        let trouble = answer.signature.as_ref().and_then(|signature| signature.data.error);
        match trouble {
            Some(TsigError::BadKey) => return Err(Refused::UnknownKey),
            Some(TsigError::BadSig) => return Err(Refused::WrongSecret),
            Some(TsigError::BadTime) => return Err(Refused::WrongTime),
            Some(TsigError::BadTrunc | TsigError::Unknown(_)) | None => {}
        }
        let mut verifier = verifier.ok_or_else(|| Refused::Unsigned("no key".to_owned()))?;
        let code = answer.metadata.response_code;
        if let Err(error) = verifier.verify(&bytes) {
            // Who does not take signed updates at all does not sign that.
            let is_no = answer.signature.is_none() && code != ResponseCode::NoError;
            return Err(if is_no { Refused::Code(code) } else { Refused::Forged(error.to_string()) });
        }
        let is_other = [ResponseCode::NXRRSet, ResponseCode::YXRRSet, ResponseCode::NXDomain, ResponseCode::YXDomain];
        if code == ResponseCode::NoError {
            Ok(())
        } else if is_other.contains(&code) {
            Err(Refused::Changed)
        } else {
            Err(Refused::Code(code))
        }
    }
}
