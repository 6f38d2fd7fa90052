//! One `[[traefik]]`, from its keys to what they mean together.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use charliehub_proto::traefik::since::Version;

use super::{
    Error, Secret, Selector, Share, Traefik,
    settings::{Found, Place, secret_file},
};

pub(super) const REMEDY: &str = "write `instance` (its name in ?instance=) and `api` (such as http://127.0.0.1:8080)";

/// What can be said of a Traefik whose API is not known.
const WITHOUT_API: &[&str] = &["instance", "labels", "min_version", "share", "site"];

/// One `[[traefik]]`, whole.
pub(super) fn read(entry: &BTreeMap<String, Found>) -> Result<Traefik, Error> {
    let text = |key: &str| entry.get(key).map(Found::text).transpose();
    let instance = text("instance")?.unwrap_or_default();
    let api = entry.get("api").map(Found::url).transpose()?;
    if let Some((_, found)) = entry.iter().find(|(key, _)| api.is_none() && !WITHOUT_API.contains(&key.as_str())) {
        return Err(Error::new(&found.place, "it is about an API, and no `api` is given", REMEDY));
    }
    let (token, password) = (secret_of(entry, "token")?, secret_of(entry, "password")?);
    let authorization = match (text("user")?, password, token) {
        (None, None, None) => None,
        (None, None, Some(token)) => Some(format!("Bearer {token}")),
        (Some(user), Some(password), None) => {
            Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
        }
        (..) => {
            let place =
                ["user", "password", "password_file", "token", "token_file"].iter().find_map(|key| entry.get(*key));
            let place = place.map_or_else(|| Place::Default("[[traefik]]".to_owned()), |found| found.place.clone());
            return Err(Error::new(
                &place,
                "credentials that do not belong together",
                "write `token`, or `user` and `password`",
            ));
        }
    };
    let min_version = entry.get("min_version").map(version).transpose()?;
    let ca_file = text("ca_file")?.map(PathBuf::from);
    Ok(Traefik {
        instance,
        api,
        authorization: authorization.map(Secret::new),
        ca_file,
        host: text("host")?,
        min_version,
        selector: selector(entry)?,
    })
}

/// Which rows it is given; none: all.
fn selector(entry: &BTreeMap<String, Found>) -> Result<Option<Selector>, Error> {
    let mut selector = Selector::default();
    if let Some(found) = entry.get("site") {
        let site = found.text()?;
        if !is_site(&site) {
            let what = format!("`{site}` is not the name of a site");
            return Err(Error::new(&found.place, what, "write it as in the table sites, such as berlin"));
        }
        selector.site = Some(site);
    }
    if let Some(found) = entry.get("labels") {
        for text in found.list()? {
            let label = text.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
            let Some((key, value)) = label else {
                let what = format!("`{text}` is not a label and its value");
                return Err(Error::new(&found.place, what, "write each as \"tier=gold\""));
            };
            if selector.labels.insert(key.to_owned(), value.to_owned()).is_some() {
                let what = format!("two values for the label `{key}`, and a row has one");
                return Err(Error::new(&found.place, what, "keep one of them"));
            }
        }
    }
    if let Some(found) = entry.get("share") {
        let share: Result<Share, _> = found.text()?.parse();
        selector.share = Some(share.map_err(|error| {
            let text = error.to_string();
            let (what, remedy) = text.split_once("; ").unwrap_or((&text, "mend it"));
            Error::new(&found.place, what, remedy)
        })?);
    }
    Ok(Some(selector).filter(|selector| !selector.is_everything()))
}

/// As a constraint of the database has it.
fn is_site(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    let inner = bytes.iter().all(|byte| *byte == b'-' || edge(Some(byte)));
    bytes.len() <= 32 && inner && edge(bytes.first()) && edge(bytes.last())
}

/// A secret of one `[[traefik]]`, from the key itself or from the file that `KEY_file` names.
fn secret_of(entry: &BTreeMap<String, Found>, key: &str) -> Result<Option<String>, Error> {
    let file = entry.get(&format!("{key}_file"));
    match (entry.get(key), file) {
        (Some(_), Some(found)) => {
            let what = format!("`{key}` and `{key}_file` are both set");
            Err(Error::new(&found.place, what, format!("keep one, best `{key}_file`")))
        }
        (None, Some(found)) => secret_file(Path::new(&found.text()?), &found.place).map(Some),
        (given, None) => given.map(Found::text).transpose(),
    }
}

fn version(found: &Found) -> Result<Version, Error> {
    let text = found.text()?;
    text.parse().map_err(|_| Error::new(&found.place, format!("`{text}` is not a version"), "write it as 3.6 or 3.6.2"))
}
