//! `[[webhook]]`: its keys, and what each must be. The environment can describe one, which replaces those of the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use charliehub_proto::event::EventKind;
use http::Uri;
use toml::de::DeValue;

use super::{Error, File, Found, Place, Settings, did_you_mean, nearest, plain, secret_file};
use crate::config::{Key, Webhook};

pub(super) const NAME: &str = "webhook";
pub(super) const KEYS: &[&str] = &["ca_file", "kinds", "secret", "secret_file", "url"];

const REMEDY: &str = "write [[webhook]] with `url` and `secret_file` once for each";
const MAKE: &str = "make one with: echo whsec_$(openssl rand -base64 32)";

/// What was set of one.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) found: BTreeMap<String, Found>,
}

impl Settings {
    pub(super) fn add_webhooks(&mut self, file: &File<'_>, value: &DeValue<'_>, place: &Place) -> Result<(), Error> {
        let entries = value.as_array().ok_or_else(|| Error::new(place, "`webhook` is a list", REMEDY))?;
        for entry in entries {
            let place = file.place(entry);
            let DeValue::Table(table) = entry.get_ref() else {
                return Err(Error::new(place, "`webhook` holds tables", REMEDY));
            };
            let mut found = BTreeMap::new();
            for (name, value) in table {
                let (key, place) = (name.get_ref().to_string(), file.place(name));
                if !KEYS.contains(&key.as_str()) {
                    let nearest = nearest(&key, KEYS.iter().copied());
                    return Err(Error::new(
                        place,
                        format!("unknown key `{key}` in [[webhook]]"),
                        did_you_mean(nearest),
                    ));
                }
                let value = plain(&key, value.get_ref(), &place)?;
                found.insert(key, Found { value, place });
            }
            self.webhooks.push(Entry { place, found });
        }
        Ok(())
    }

    pub(in crate::config) fn webhooks(&self) -> Result<Vec<Webhook>, Error> {
        let mut hosts = BTreeMap::<String, usize>::new();
        self.webhooks
            .iter()
            .map(|entry| {
                let url = entry.url()?;
                let host = url.authority().map(ToString::to_string).unwrap_or_default();
                let count = hosts.entry(host.clone()).or_default();
                *count += 1;
                let name = if *count > 1 { format!("{host}#{count}") } else { host };
                let ca_file = entry.found.get("ca_file").map(Found::text).transpose()?.map(PathBuf::from);
                Ok(Webhook { name, url, key: entry.key()?, kinds: entry.kinds()?, ca_file })
            })
            .collect()
    }
}

impl Entry {
    fn url(&self) -> Result<Uri, Error> {
        let found =
            self.found.get("url").ok_or_else(|| Error::new(&self.place, "[[webhook]] without `url`", REMEDY))?;
        let text = found.text()?;
        let uri = text.parse().ok().filter(|uri: &Uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
        });
        // What is behind the host may be a secret.
        let wrong = |what: &str| Error::new(&found.place, what, "write it as https://HOST/PATH");
        let uri = uri.ok_or_else(|| wrong("`url` is not a URL of http or https"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("a login in `url` is not sent: messages are signed"));
        }
        Ok(uri)
    }

    /// As the Standard Webhooks have it: `whsec_` and 24 to 64 bytes in base64.
    fn key(&self) -> Result<Key, Error> {
        let (found, text) = match (self.found.get("secret"), self.found.get("secret_file")) {
            (Some(found), None) => (found, found.text()?),
            (None, Some(found)) => (found, secret_file(&PathBuf::from(found.text()?), &found.place)?),
            (Some(_), Some(found)) => {
                let what = "`secret` and `secret_file` are both set";
                return Err(Error::new(&found.place, what, "keep one, best `secret_file`"));
            }
            (None, None) => return Err(Error::new(&self.place, "[[webhook]] without `secret` or `secret_file`", MAKE)),
        };
        let bytes = text.strip_prefix("whsec_").and_then(|text| BASE64_STANDARD.decode(text).ok());
        let key = bytes.filter(|bytes| (24..=64).contains(&bytes.len()));
        key.map(Key)
            .ok_or_else(|| Error::new(&found.place, "the secret is not `whsec_` and 24 to 64 bytes in base64", MAKE))
    }

    /// An instance acknowledges each change, so that is for those who ask for it.
    fn kinds(&self) -> Result<BTreeSet<EventKind>, Error> {
        let Some(found) = self.found.get("kinds") else {
            return Ok(EventKind::ALL.into_iter().filter(|kind| *kind != EventKind::Ack).collect());
        };
        let names = found.list()?;
        if names.is_empty() {
            return Err(Error::new(&found.place, "`kinds` is empty", "leave it out for all but ack"));
        }
        names
            .iter()
            .map(|name| {
                EventKind::named(name).map_err(|nearest| {
                    Error::new(&found.place, format!("`{name}` is no kind of event"), did_you_mean(Some(nearest)))
                })
            })
            .collect()
    }
}
