//! `[[ddns.zone]]`: its keys, and what each must be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use charliehub_dns::update::Algorithm;
use charliehub_secret::Source;
use toml::de::DeValue;

use super::{Error, File, Found, Place, Settings, did_you_mean, nearest, plain};
use crate::config::{
    ddns::{Ddns, Mode, Provider, Zone},
    value::host_of,
};

pub(super) const NAME: &str = "ddns.zone";
const KEYS: &[&str] = &[
    "algorithm",
    "application_key",
    "ca_file",
    "consumer_key_file",
    "key_name",
    "nameserver",
    "provider",
    "secret_file",
    "server",
    "ttl",
    "url",
    "zone",
];
/// Those of one provider alone.
const RFC2136: &[&str] = &["algorithm", "key_name", "server"];
const OVH: &[&str] = &["application_key", "ca_file", "consumer_key_file", "url"];

const REMEDY: &str = "write [[ddns.zone]] with `zone`, `provider` and `secret_file` once for each zone";
const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("hmac-sha256", Algorithm::HmacSha256),
    ("hmac-sha384", Algorithm::HmacSha384),
    ("hmac-sha512", Algorithm::HmacSha512),
];
/// OVH's API for Europe.
const OVH_URL: &str = "https://eu.api.ovh.com/1.0";
const TTL: u32 = 60;
/// Changes are remembered for a day.
const LONGEST: Duration = Duration::from_hours(24);

/// What was set of one.
#[derive(Debug)]
pub(super) struct Entry {
    place: Place,
    found: BTreeMap<String, Found>,
}

impl Settings {
    pub(super) fn add_zones(&mut self, file: &File<'_>, value: &DeValue<'_>, place: &Place) -> Result<(), Error> {
        let entries = value.as_array().ok_or_else(|| Error::new(place, "`ddns.zone` is a list", REMEDY))?;
        for entry in entries {
            let place = file.place(entry);
            let DeValue::Table(table) = entry.get_ref() else {
                return Err(Error::new(place, "`ddns.zone` holds tables", REMEDY));
            };
            let mut found = BTreeMap::new();
            for (name, value) in table {
                let (key, place) = (name.get_ref().to_string(), file.place(name));
                if !KEYS.contains(&key.as_str()) {
                    let nearest = nearest(&key, KEYS.iter().copied());
                    let what = format!("unknown key `{key}` in [[ddns.zone]]");
                    return Err(Error::new(place, what, did_you_mean(nearest)));
                }
                let value = plain(&key, value.get_ref(), &place)?;
                found.insert(key, Found { value, place });
            }
            self.zones.push(Entry { place, found });
        }
        Ok(())
    }

    pub(in crate::config) fn ddns(&self) -> Result<Ddns, Error> {
        let modes = [("off", Mode::Off), ("false", Mode::Off), ("dry-run", Mode::DryRun), ("act", Mode::Act)];
        let mode = self.choice("ddns.mode", &modes)?.unwrap_or(Mode::Off);
        let interval = self.duration("ddns.interval")?.unwrap_or(Duration::from_mins(5));
        if interval > LONGEST {
            let what = "changes are remembered for a day, so `ddns.interval` cannot be longer";
            return Err(Error::new(self.place("ddns.interval"), what, "write 5m"));
        }
        let mut zones: Vec<Zone> = Vec::new();
        for entry in &self.zones {
            let zone = entry.read()?;
            if zones.iter().any(|other| other.zone == zone.zone) {
                let what = format!("two [[ddns.zone]] are `{}`", zone.zone);
                return Err(Error::new(&entry.place, what, "keep one"));
            }
            zones.push(zone);
        }
        if mode != Mode::Off && zones.is_empty() {
            return Err(Error::new(self.place("ddns.mode"), "`ddns.mode` is set and no zone is", REMEDY));
        }
        Ok(Ddns {
            mode,
            stable: self.duration("ddns.stable")?.unwrap_or(Duration::from_mins(1)),
            interval,
            look: self.duration("ddns.look")?.unwrap_or(Duration::from_secs(30)),
            zones,
            sources: self.sources()?,
        })
    }

    fn sources(&self) -> Result<BTreeMap<String, Source>, Error> {
        let mut sources = BTreeMap::new();
        for text in self.list("ddns.sources")?.unwrap_or_default() {
            let place = self.place("ddns.sources");
            let remedy = "write it as SITE=/path/of/a/file or SITE=exec:/path/of/a/command";
            let wrong = || Error::new(&place, format!("`{text}` is no source of an address"), remedy);
            let (site, source) = text.split_once('=').ok_or_else(wrong)?;
            let (site, source) = (site.trim(), source.trim());
            if site.is_empty() || !(source.starts_with('/') || source.starts_with(charliehub_secret::EXEC)) {
                return Err(wrong());
            }
            if sources.insert(site.to_owned(), Source::from(Path::new(source))).is_some() {
                return Err(Error::new(&place, format!("site `{site}` has two sources"), "keep one"));
            }
        }
        Ok(sources)
    }
}

impl Entry {
    fn text(&self, key: &str) -> Result<Option<String>, Error> {
        self.found.get(key).map(Found::text).transpose()
    }

    fn place(&self, key: &str) -> Place {
        self.found.get(key).map_or_else(|| self.place.clone(), |found| found.place.clone())
    }

    fn needed(&self, key: &str) -> Result<String, Error> {
        self.text(key)?.ok_or_else(|| Error::new(&self.place, format!("[[ddns.zone]] without `{key}`"), "add it"))
    }

    /// Where a secret is. It is read when it is used, so that it may change.
    fn secret(&self, key: &str) -> Result<Source, Error> {
        Ok(Source::from(PathBuf::from(self.needed(key)?).as_path()))
    }

    /// HOST:PORT; the port may be left out.
    fn server(&self, key: &str) -> Result<Option<String>, Error> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        if let Ok(address) = charliehub_dns::server(&text) {
            return Ok(Some(address.to_string()));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((&text, "53"));
        if host.is_empty() || host.contains([':', '/', ' ']) || port.parse::<u16>().is_err() {
            let what = format!("`{text}` is no name server");
            return Err(Error::new(self.place(key), what, "write it as HOST, HOST:PORT or [ADDRESS]:PORT"));
        }
        Ok(Some(format!("{host}:{port}")))
    }

    fn read(&self) -> Result<Zone, Error> {
        let zone = self.needed("zone")?.trim_end_matches('.').to_ascii_lowercase();
        if zone.is_empty() || charliehub_dns::name(&zone).is_err() {
            return Err(Error::new(self.place("zone"), format!("`{zone}` is no zone"), "write it as example.org"));
        }
        let (provider, others) = match self.needed("provider")?.as_str() {
            "rfc2136" => (self.rfc2136()?, OVH),
            "ovh" => (self.ovh()?, RFC2136),
            other => {
                let nearest = nearest(other, ["rfc2136", "ovh"].into_iter());
                let what = format!("`{other}` is no provider of DNS that we know");
                return Err(Error::new(self.place("provider"), what, did_you_mean(nearest)));
            }
        };
        let others: BTreeSet<&str> = others.iter().copied().collect();
        if let Some((key, found)) = self.found.iter().find(|(key, _)| others.contains(key.as_str())) {
            return Err(Error::new(&found.place, format!("`{key}` is of another provider"), "remove it"));
        }
        let nameserver = match (&provider, self.server("nameserver")?) {
            (Provider::Rfc2136 { server, .. }, None) => Some(server.clone()),
            (_, given) => given,
        };
        let ttl = self.found.get("ttl").map(|found| found.number(&(1..=86_400))).transpose()?.unwrap_or(TTL);
        Ok(Zone { zone, ttl, nameserver, provider })
    }

    fn rfc2136(&self) -> Result<Provider, Error> {
        let server = self.server("server")?;
        let server = server.ok_or_else(|| {
            Error::new(&self.place, "[[ddns.zone]] without `server`", "name the zone's primary name server")
        })?;
        let key_name = self.needed("key_name")?;
        if charliehub_dns::name(&key_name).is_err() {
            let what = format!("`{key_name}` is no name of a key");
            return Err(Error::new(self.place("key_name"), what, "write it as the name server has it"));
        }
        let algorithm = self.text("algorithm")?.unwrap_or_else(|| "hmac-sha256".to_owned());
        let known = ALGORITHMS.iter().find(|(name, _)| *name == algorithm);
        let (_, algorithm) = known.ok_or_else(|| {
            let nearest = nearest(&algorithm, ALGORITHMS.iter().map(|(name, _)| *name));
            Error::new(
                self.place("algorithm"),
                format!("`{algorithm}` is no algorithm that we use"),
                did_you_mean(nearest),
            )
        })?;
        Ok(Provider::Rfc2136 { server, key_name, algorithm: *algorithm, secret: self.secret("secret_file")? })
    }

    fn ovh(&self) -> Result<Provider, Error> {
        let url = self.found.get("url").map(Found::url).transpose()?.unwrap_or_else(|| OVH_URL.to_owned());
        let host = host_of(&url).and_then(|host| host.parse::<IpAddr>().ok());
        if !url.starts_with("https://") && !host.is_some_and(|host| host.is_loopback()) {
            let what = format!("`{url}` is asked in the clear");
            return Err(Error::new(self.place("url"), what, "write it with https://"));
        }
        Ok(Provider::Ovh {
            url,
            ca_file: self.text("ca_file")?.map(PathBuf::from),
            application_key: self.needed("application_key")?,
            application_secret: self.secret("secret_file")?,
            consumer_key: self.secret("consumer_key_file")?,
        })
    }
}
