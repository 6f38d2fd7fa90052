//! Tells a name server of a change, by a signed update.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use charliehub_dns::{
    Asker,
    update::{Algorithm, Key, Refused, Replacement},
};
use charliehub_secret::Source;
use jiff::Timestamp;

use super::{Failure, ask, secret};

/// A server that takes updates, and the key that it knows.
pub(super) struct Server<'s> {
    pub at: &'s str,
    pub key_name: &'s str,
    pub algorithm: Algorithm,
    pub secret: &'s Source,
}

impl Server<'_> {
    /// Has `name` in `zone` changed, if it still is what it was.
    pub(super) async fn change(&self, zone: &str, name: &str, change: &super::Apply) -> Result<(), Failure> {
        let text = secret(self.secret).await?;
        let bytes = BASE64_STANDARD.decode(text.trim()).map_err(|_| {
            Failure::new(
                "the secret of the key is not base64",
                "write into `secret_file` what the name server's `secret` says",
            )
        })?;
        let named =
            |text: &str| charliehub_dns::name(text).map_err(|error| Failure::new(error.to_string(), "mend the name"));
        let key = Key::new(&named(self.key_name)?, self.algorithm, bytes).map_err(|error| self.failure(&error))?;
        let (zone, name) = (named(zone)?, named(name)?);
        let replacement = Replacement { zone: &zone, name: &name, old: change.old, new: change.new, ttl: change.ttl };
        let server = ask::address(self.at).await?;
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        let asker = Asker { timeout: ask::PATIENCE };
        replacement.send(asker, server, &key, now).await.map_err(|error| self.failure(&error))
    }

    fn failure(&self, refused: &Refused) -> Failure {
        let (at, key) = (self.at, self.key_name);
        let remedy = match refused {
            Refused::Unasked(_) => format!("see that {at} answers over TCP from here"),
            Refused::UnknownKey => {
                format!("give {at} the key `{key}` with this algorithm, or name in `key_name` one that it has")
            }
            Refused::WrongSecret => format!("write the secret that {at} has of the key `{key}` into `secret_file`"),
            Refused::WrongTime => format!("have the clocks of this machine and of {at} synchronised"),
            Refused::Unsigned(_) | Refused::Forged(_) => format!("see who answers at {at}, and with which key"),
            Refused::Changed => {
                format!("see who else changes it; of a wildcard's name, make the record at {at} by hand once")
            }
            Refused::Code(_) => {
                format!("let {at} take updates of this name by the key `{key}`: allow-update or update-policy")
            }
        };
        Failure::new(refused.to_string(), remedy)
    }
}
