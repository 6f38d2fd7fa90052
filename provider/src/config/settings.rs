//! Which value each key has, and where it came from.
//!
//! Sources are added from the weakest to the strongest; a later one replaces an earlier one key by key. A key that does
//! not exist is refused here, with the nearest one that does.

mod ddns;
mod webhook;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use charliehub_secret::Source;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Error, Flags, Secret, Selector, Traefik, traefik};

/// Every key but those of `[[traefik]]`, `[[webhook]]` and `[[ddns.zone]]`. In the environment: `CHARLIEHUB_`, then the key in capitals with `_` for `.`.
const KEYS: &[&str] = &[
    "access.forward_auth.address",
    "access.forward_auth.auth_response_headers",
    "access.group_roles",
    "access.groups_header",
    "access.internal_networks",
    "access.trusted_proxies",
    "access.user_header",
    "agents.silent_after",
    "audit.git_folders",
    "compile.cert_resolvers",
    "compile.coalesce",
    "compile.default_certificate.cert_file",
    "compile.default_certificate.key_file",
    "compile.default_resolver",
    "compile.entry_points",
    "compile.self_url",
    "database.bin_dir",
    "database.migrate",
    "database.password",
    "database.password_file",
    "database.run_as",
    "database.url",
    "database.url_file",
    "ddns.interval",
    "ddns.look",
    "ddns.mode",
    "ddns.sources",
    "ddns.stable",
    "guard.containment",
    "guard.hold_login_loss",
    "guard.hold_opening",
    "guard.max_quarantined",
    "guard.max_quarantined_percent",
    "guard.max_removed",
    "guard.max_removed_percent",
    "guard.rollback_on_regression",
    "guard.window",
    "history.age",
    "history.keep",
    "history.max_bytes",
    "log.changes_file",
    "log.filter",
    "log.format",
    "rehearse.timeout",
    "rehearse.traefik",
    "serve.allowed_hosts",
    "serve.client_ca",
    "serve.data_dir",
    "serve.insecure",
    "serve.listen",
    "serve.max_wait",
    "serve.rate_burst",
    "serve.rate_limit",
    "serve.strict_locking",
    "serve.tls_certificate",
    "serve.tls_key",
];

/// Keys of one `[[traefik]]`. The environment can describe one Traefik, which replaces those of the file.
const TRAEFIK_KEYS: &[&str] = &[
    "api",
    "ca_file",
    "host",
    "instance",
    "labels",
    "min_version",
    "password_file",
    "password",
    "share",
    "site",
    "token_file",
    "token",
    "user",
];

/// More parts than this are none: each is compiled, judged and kept on its own.
const PARTS: usize = 64;

/// Keys whose value may be in a file of its own, or in a systemd credential of the key's name.
const SECRETS: &[&str] = &["database.password", "database.url"];

const PREFIX: &str = "CHARLIEHUB_";

/// What has our prefix and is read elsewhere: where the file is, and which provider `domains` asks.
const NO_SETTINGS: &[&str] = &["CONFIG", "SERVER"];

/// Where a value came from, as an error names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    File { path: String, line: usize },
    Variable(String),
    Credential(String),
    Flag(&'static str),
    Default(String),
}

impl Place {
    fn is(&self, name: &str) -> bool {
        matches!(self, Self::Variable(variable) if variable == name)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Credential(name) => write!(f, "credential {name}"),
            Self::Flag(name) => f.write_str(name),
            Self::Default(key) => write!(f, "`{key}`"),
        }
    }
}

/// A value before its key says what type it has.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// From the environment or a flag: whatever type its key has, as text.
    Word(String),
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<String>),
}

#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) value: Value,
    pub(super) place: Place,
}

#[derive(Debug, Default)]
pub(super) struct Settings {
    found: BTreeMap<String, Found>,
    traefik: Vec<BTreeMap<String, Found>>,
    webhooks: Vec<webhook::Entry>,
    zones: Vec<ddns::Entry>,
}

impl Settings {
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let file = File { path: path.display().to_string(), text };
        let table = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| file.line(span.start));
            Error::new(format!("{}:{line}", file.path), error.message(), "write it as TOML")
        })?;
        self.add_table(&file, "", table.get_ref())?;
        self.one_of_each_secret()
    }

    fn add_table(&mut self, file: &File<'_>, above: &str, table: &DeTable<'_>) -> Result<(), Error> {
        for (name, value) in table {
            let key = if above.is_empty() { name.get_ref().to_string() } else { format!("{above}.{}", name.get_ref()) };
            let place = file.place(name);
            let value = value.get_ref();
            if key == "traefik" {
                let entries = value.as_array().ok_or_else(|| {
                    Error::new(&place, "`traefik` is a list", "write [[traefik]] once for each Traefik")
                })?;
                for entry in entries {
                    self.add_traefik(file, entry)?;
                }
            } else if key == webhook::NAME {
                self.add_webhooks(file, value, &place)?;
            } else if key == ddns::NAME {
                self.add_zones(file, value, &place)?;
            } else if is_section(&key) {
                let inner = value.as_table().ok_or_else(|| {
                    Error::new(&place, format!("`{key}` has keys of its own"), format!("write [{key}] and its keys"))
                })?;
                self.add_table(file, &key, inner)?;
            } else if KEYS.contains(&key.as_str()) {
                let found = Found { value: plain(&key, value, &place)?, place };
                self.found.insert(key, found);
            } else {
                return Err(unknown(&place, &key));
            }
        }
        Ok(())
    }

    fn add_traefik(&mut self, file: &File<'_>, entry: &Spanned<DeValue<'_>>) -> Result<(), Error> {
        let DeValue::Table(table) = entry.get_ref() else {
            return Err(Error::new(
                file.place(entry),
                "`traefik` holds tables",
                "write [[traefik]] once for each Traefik",
            ));
        };
        let mut traefik = BTreeMap::new();
        for (name, value) in table {
            let (key, place) = (name.get_ref().to_string(), file.place(name));
            if !TRAEFIK_KEYS.contains(&key.as_str()) {
                let nearest = nearest(&key, TRAEFIK_KEYS.iter().copied());
                return Err(Error::new(place, format!("unknown key `{key}` in [[traefik]]"), did_you_mean(nearest)));
            }
            let value = plain(&key, value.get_ref(), &place)?;
            traefik.insert(key, Found { value, place });
        }
        if !traefik.contains_key("instance") {
            return Err(Error::new(file.place(entry), "[[traefik]] without `instance`", traefik::REMEDY));
        }
        self.traefik.push(traefik);
        Ok(())
    }

    /// Credentials of the unit: files named as the key, such as `database.url`.
    pub(super) fn add_credentials(&mut self, directory: &Path) {
        for key in SECRETS {
            let path = directory.join(key);
            if path.exists() {
                let place = Place::Credential((*key).to_owned());
                self.replace(&format!("{key}_file"), Found { value: Value::Text(path.display().to_string()), place });
            }
        }
    }

    /// Variables with our prefix, and `DATABASE_URL` when ours is not set. An empty variable is one that is not set.
    pub(super) fn add_environment(&mut self, environment: &[(String, String)]) -> Result<(), Error> {
        let mut layer = Self::default();
        let mut traefik = BTreeMap::new();
        let mut webhook = BTreeMap::new();
        for (name, text) in environment.iter().filter(|(_, text)| !text.is_empty()) {
            let place = Place::Variable(name.clone());
            let found = Found { value: Value::Word(text.clone()), place: place.clone() };
            if name == "DATABASE_URL" {
                layer.found.entry("database.url".to_owned()).or_insert(found);
                continue;
            }
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if let Some(key) = KEYS.iter().find(|key| variable(key) == *name) {
                layer.found.insert((*key).to_owned(), found);
            } else if let Some(key) = TRAEFIK_KEYS.iter().find(|key| rest == format!("TRAEFIK_{}", key.to_uppercase()))
            {
                traefik.insert((*key).to_owned(), found);
            } else if let Some(key) = webhook::KEYS.iter().find(|key| variable(&format!("webhook.{key}")) == *name) {
                webhook.insert((*key).to_owned(), found);
            } else if !NO_SETTINGS.contains(&rest) {
                let webhooks = webhook::KEYS.iter().map(|key| variable(&format!("webhook.{key}")));
                let valid: Vec<String> = KEYS.iter().map(|key| variable(key)).chain(webhooks).collect();
                let nearest = nearest(name, valid.iter().map(String::as_str));
                return Err(Error::new(place, "there is no such setting", did_you_mean(nearest)));
            }
        }
        // Whoever sets our own variable means it; DATABASE_URL may be there for another program.
        if layer.found.contains_key("database.url_file") && layer.place("database.url").is("DATABASE_URL") {
            layer.found.remove("database.url");
        }
        layer.one_of_each_secret()?;
        for (key, found) in layer.found {
            self.replace(&key, found);
        }
        if let Some(given) = traefik.values().next() {
            if !traefik.contains_key("instance") || !traefik.contains_key("api") {
                let remedy = "set CHARLIEHUB_TRAEFIK_INSTANCE and CHARLIEHUB_TRAEFIK_API";
                return Err(Error::new(&given.place, "only half of a Traefik", remedy));
            }
            self.traefik = vec![traefik];
        }
        if let Some(place) = webhook.values().next().map(|found| found.place.clone()) {
            self.webhooks = vec![webhook::Entry { place, found: webhook }];
        }
        Ok(())
    }

    pub(super) fn add_flags(&mut self, flags: &Flags) {
        let texts = [
            ("serve.data_dir", "--data-dir", flags.data_dir.as_ref()),
            ("database.url", "--database-url", flags.database_url.as_ref()),
            ("serve.listen", "--listen", flags.listen.as_ref()),
        ];
        for (key, flag, text) in texts {
            if let Some(text) = text {
                self.replace(key, Found { value: Value::Word(text.clone()), place: Place::Flag(flag) });
            }
        }
        if flags.insecure {
            self.replace("serve.insecure", Found { value: Value::Boolean(true), place: Place::Flag("--insecure") });
        }
        if flags.no_migrate {
            self.replace(
                "database.migrate",
                Found { value: Value::Boolean(false), place: Place::Flag("--no-migrate") },
            );
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Found> {
        self.found.get(key)
    }

    /// Where the value of a key came from; the key itself when nobody set it.
    pub(super) fn place(&self, key: &str) -> Place {
        self.found.get(key).map_or_else(|| Place::Default(key.to_owned()), |found| found.place.clone())
    }

    /// A secret, from the key itself or from where `KEY_file` says that it is.
    pub(super) fn secret(&self, key: &str) -> Result<Option<Secret>, Error> {
        let file = format!("{key}_file");
        match self.path(&file)? {
            Some(path) => secret_file(&path, &self.place(&file)).map(|text| Some(Secret::new(text))),
            None => Ok(self.text(key)?.map(Secret::new)),
        }
    }

    /// Where a secret can be read again; none when it is in the settings themselves.
    pub(super) fn source(&self, key: &str) -> Result<Option<Source>, Error> {
        Ok(self.path(&format!("{key}_file"))?.map(|path| Source::from(path.as_path())))
    }

    pub(super) fn traefik(&self) -> Result<Vec<Traefik>, Error> {
        let traefiks: Vec<Traefik> = self.traefik.iter().map(traefik::read).collect::<Result<_, _>>()?;
        for (index, (entry, one)) in self.traefik.iter().zip(&traefiks).enumerate() {
            if traefiks.iter().take(index).any(|other| other.instance == one.instance) {
                let place = entry
                    .get("instance")
                    .map_or_else(|| Place::Default("[[traefik]]".to_owned()), |found| found.place.clone());
                let what = format!("two [[traefik]] are called `{}`", one.instance);
                return Err(Error::new(&place, what, "give each the name that it has in its own ?instance="));
            }
        }
        let parts: BTreeSet<&Selector> = traefiks.iter().filter_map(|traefik| traefik.selector.as_ref()).collect();
        if parts.len() > PARTS {
            let what = format!("the [[traefik]] select {} different parts of the rows", parts.len());
            let remedy = format!("have at most {PARTS}; instances may share one");
            return Err(Error::new(Place::Default("[[traefik]]".to_owned()), what, remedy));
        }
        Ok(traefiks)
    }

    /// Sets a key over a weaker source; a secret and its file stand for each other.
    fn replace(&mut self, key: &str, found: Found) {
        for secret in SECRETS {
            let file = format!("{secret}_file");
            if key == *secret {
                self.found.remove(&file);
            } else if key == file {
                self.found.remove(*secret);
            }
        }
        self.found.insert(key.to_owned(), found);
    }

    fn one_of_each_secret(&self) -> Result<(), Error> {
        for secret in SECRETS {
            let file = format!("{secret}_file");
            if let (Some(_), Some(found)) = (self.found.get(*secret), self.found.get(&file)) {
                return Err(Error::new(
                    &found.place,
                    format!("`{secret}` and `{file}` are both set"),
                    format!("keep one, best `{file}`"),
                ));
            }
        }
        Ok(())
    }
}

/// A file being read, to say on which line something is.
struct File<'t> {
    path: String,
    text: &'t str,
}

impl File<'_> {
    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    fn place<T>(&self, of: &Spanned<T>) -> Place {
        Place::File { path: self.path.clone(), line: self.line(of.span().start) }
    }
}

fn is_section(key: &str) -> bool {
    KEYS.iter().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// A value of the file without its span: what no key takes is refused.
fn plain(key: &str, value: &DeValue<'_>, place: &Place) -> Result<Value, Error> {
    let refused = || {
        let what = format!("`{key}` cannot be a {}", value.type_str());
        Error::new(place, what, "write text in quotes, a whole number, true or false, or a list of texts")
    };
    Ok(match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Integer(number) => {
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| refused())?)
        }
        DeValue::Array(entries) => Value::List(
            entries
                .iter()
                .map(|entry| entry.get_ref().as_str().map(str::to_owned).ok_or_else(refused))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => return Err(refused()),
    })
}

/// A secret from where a key `*_file` says that it is: a file, or `exec:` and a command.
pub(super) fn secret_file(path: &Path, place: &Place) -> Result<String, Error> {
    Source::from(path).read().map_err(|error| {
        let text = error.to_string();
        let (what, remedy) = text.rsplit_once("; ").unwrap_or((&text, "mend it"));
        Error::new(place, what, remedy)
    })
}

fn unknown(place: &Place, key: &str) -> Error {
    let (section, _) = key.rsplit_once('.').unwrap_or_default();
    if section.is_empty() {
        let sections = KEYS.iter().filter_map(|known| known.split('.').next()).chain(["traefik", webhook::NAME]);
        // A key outside of its section is commoner than a section that does not exist.
        let elsewhere = KEYS.iter().find(|known| known.rsplit('.').next() == Some(key)).copied();
        return Error::new(
            place,
            format!("unknown section `{key}`"),
            did_you_mean(elsewhere.or(nearest(key, sections))),
        );
    }
    Error::new(place, format!("unknown key `{key}`"), did_you_mean(nearest(key, KEYS.iter().copied())))
}

/// The valid name that is most like `name`.
fn nearest<'k>(name: &str, valid: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    valid.min_by_key(|known| strsim::damerau_levenshtein(name, known))
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(|| "remove it".to_owned(), |nearest| format!("did you mean `{nearest}`?"))
}
