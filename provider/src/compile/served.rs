//! Which name a row has served with a certificate, and how: what an agent on the edge holds reality against.

use charliehub_proto::{domain::TlsMode, expected::Served};

use super::{Compiler, tls::resolver};
use crate::row::{Key, Row};

impl Compiler {
    /// The name as clients ask for it, and who serves it. None for a row whose TLS ends elsewhere, or that is off.
    ///
    /// A row that is closed answers 503 under its name, with a certificate all the same.
    pub fn served(&self, key: &Key) -> Option<(String, Served)> {
        let spot = self.places.get(key)?.spot()?;
        let Row::Domain(row) = &**self.rows.get(key)? else { return None };
        let entry = spot.entry_points.iter().find(|entry| entry.tls)?;
        let resolver = match row.tls_mode {
            TlsMode::Acme => resolver(row, &self.settings),
            TlsMode::Default => None,
            TlsMode::Passthrough | TlsMode::None => return None,
        };
        let resolver = resolver.map(str::to_owned);
        let served = Served { entry_point: entry.name.to_string(), resolver, dns_mode: row.dns_mode };
        Some((spot.host.as_str().to_owned(), served))
    }
}
