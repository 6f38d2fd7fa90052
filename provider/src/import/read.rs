//! Files to typed pieces of Traefik's configuration, as Traefik's file provider reads and merges them.
//!
//! A directory is read with all below it. What stands in two files is an error that names both, where Traefik would
//! keep the first and only log it. Templates are refused: what they come to is only known where Traefik runs.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use charliehub_proto::traefik::{self, Configuration, Kind, Piece, http, tcp};
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Error, Left, Name, lenient::Lenient};
use crate::snapshot::encode::hex;

/// How our export writes `{{`, which Traefik's file provider would take for a template.
pub const BRACES: &str = "{{\"{{\"}}";

/// All that was found, and where.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) pieces: BTreeMap<Name, Piece>,
    pub(super) files: BTreeMap<Name, Arc<str>>,
    /// What has no meaning as a piece of ours.
    pub(super) left_out: Vec<Left>,
}

pub(super) fn read(paths: &[PathBuf]) -> Result<Found, Error> {
    let mut found = Found::default();
    for path in paths {
        let mut files = Vec::new();
        list(path, true, &mut files)?;
        if files.is_empty() {
            return Err(Error::NoFiles { path: path.clone() });
        }
        for file in files {
            let text = fs::read_to_string(&file).map_err(|source| Error::File { path: file.clone(), source })?;
            found.add(&file, &text)?;
        }
    }
    Ok(found)
}

/// The files below a path, in the order of their names; one that is named is taken whatever it is called.
fn list(path: &Path, named: bool, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let wrong = |source: io::Error| Error::File { path: path.to_owned(), source };
    if fs::metadata(path).map_err(wrong)?.is_dir() {
        let mut inside: Vec<PathBuf> = fs::read_dir(path)
            .map_err(wrong)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(wrong)?;
        inside.sort();
        return inside.iter().try_for_each(|path| list(path, false, files));
    }
    if named || Format::of(path).is_some() {
        files.push(path.to_owned());
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Yaml,
    Toml,
    Json,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "yml" | "yaml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn tree(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Toml => toml::from_str(text).map_err(|error| error.to_string()),
            Self::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
            Self::Yaml => {
                // For a hundred thousand routers; what bounds aliases stays as it is.
                let budget = serde_saphyr::budget! { max_events: 50_000_000, max_nodes: 25_000_000 };
                let options = serde_saphyr::options! {
                    budget: budget,
                    strict_booleans: true,
                    // 017 is 15, as Traefik's reader has it (3.7.15).
                    legacy_octal_numbers: true,
                };
                serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
            }
        }
    }
}

impl Found {
    fn add(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let file: Arc<str> = path.file_name().unwrap_or_default().to_string_lossy().into();
        let invalid = |at: &str, reason: String| Error::Invalid {
            file: path.to_owned(),
            at: at.to_owned(),
            reason: reason.lines().next().unwrap_or_default().to_owned(),
        };
        let Some(format) = Format::of(path) else { return Err(Error::Extension { path: path.to_owned() }) };
        let text = text.replace(BRACES, "\u{e000}");
        if let Some(line) = text.lines().position(|line| line.contains("{{")) {
            return Err(Error::Template { path: path.to_owned(), line: line + 1 });
        }
        let mut tree = format.tree(&text.replace('\u{e000}', "{{")).map_err(|reason| invalid("", reason))?;
        let Some(sections) = tree.as_object_mut() else { return Err(Error::NoConfiguration { path: path.to_owned() }) };
        let given = sections.len();
        sections.retain(|name, _| ["http", "tcp", "udp", "tls"].iter().any(|known| known.eq_ignore_ascii_case(name)));
        if sections.is_empty() && given > 0 {
            return Err(Error::NoConfiguration { path: path.to_owned() });
        }
        let mut track = serde_path_to_error::Track::new();
        let typed = Configuration::deserialize(serde_path_to_error::Deserializer::new(Lenient(tree), &mut track))
            .map_err(|error| invalid(&track.path().to_string(), error.to_string()))?;
        self.take(typed, path, &file)
    }

    fn take(&mut self, typed: Configuration, path: &Path, file: &Arc<str>) -> Result<(), Error> {
        let Configuration { http, tcp, udp, tls } = typed;
        for (name, service) in &http.services {
            let balancer =
                service.load_balancer.as_ref().is_some_and(|balancer| *balancer == http::LoadBalancer::default());
            self.without_servers(balancer, Kind::HttpService, name, file);
        }
        for (name, service) in &tcp.services {
            let balancer =
                service.load_balancer.as_ref().is_some_and(|balancer| *balancer == tcp::LoadBalancer::default());
            self.without_servers(balancer, Kind::TcpService, name, file);
        }
        let certificates = tls.certificates.into_iter().map(|certificate| {
            let name = certificate_name(&certificate);
            (name, certificate)
        });
        let certificates: BTreeMap<String, traefik::tls::Certificate> = certificates.collect();
        let at = Place { path, file };
        self.section(Kind::HttpRouter, http.routers, &at)?;
        self.section(Kind::HttpService, http.services, &at)?;
        self.section(Kind::HttpMiddleware, http.middlewares, &at)?;
        self.section(Kind::HttpServersTransport, http.servers_transports, &at)?;
        self.section(Kind::HttpModel, http.models, &at)?;
        self.section(Kind::TcpRouter, tcp.routers, &at)?;
        self.section(Kind::TcpService, tcp.services, &at)?;
        self.section(Kind::TcpMiddleware, tcp.middlewares, &at)?;
        self.section(Kind::TcpServersTransport, tcp.servers_transports, &at)?;
        self.section(Kind::UdpRouter, udp.routers, &at)?;
        self.section(Kind::UdpService, udp.services, &at)?;
        self.section(Kind::TlsOption, tls.options, &at)?;
        self.section(Kind::TlsStore, tls.stores, &at)?;
        self.section(Kind::TlsCertificate, certificates, &at)
    }

    /// The model has no service without servers: a router that leads to none of ours answers 503 too.
    fn without_servers(&mut self, is: bool, kind: Kind, name: &str, file: &Arc<str>) {
        if is {
            let reason = "has no servers: what leads to it answers 503, as it did".to_owned();
            self.left_out.push(Left { kind: kind.name(), name: name.to_owned(), file: Arc::clone(file), reason });
        }
    }

    fn section<T: Serialize>(&mut self, kind: Kind, given: BTreeMap<String, T>, at: &Place<'_>) -> Result<(), Error> {
        for (name, body) in given {
            let is = |left: &Left| left.kind == kind.name() && left.name == name && left.file == *at.file;
            if self.left_out.iter().any(is) {
                continue;
            }
            if name.contains('@') {
                return Err(Error::At { file: at.path.to_owned(), kind, name });
            }
            let body = serde_json::to_value(&body).unwrap_or_default();
            let piece = traefik::piece(kind, &body).map_err(|invalid| Error::Piece {
                file: at.path.to_owned(),
                kind,
                name: name.clone(),
                invalid,
            })?;
            let key = (kind, name);
            if let Some(other) = self.files.get(&key)
                && (kind != Kind::TlsCertificate || self.pieces.get(&key) != Some(&piece))
            {
                return Err(Error::Twice { kind, name: key.1, files: [other.to_string(), at.file.to_string()] });
            }
            self.files.insert(key.clone(), Arc::clone(at.file));
            self.pieces.insert(key, piece);
        }
        Ok(())
    }
}

/// The file that is read: where it is, and what people call it.
struct Place<'a> {
    path: &'a Path,
    file: &'a Arc<str>,
}

/// Certificates have no name in Traefik. This one is the same for the same certificate, wherever it stands.
fn certificate_name(certificate: &traefik::tls::Certificate) -> String {
    let digest = hex(&Sha256::digest(traefik::to_json(certificate)));
    format!("certificate-{}", digest.get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(name: &str, text: &str) -> Result<Found, String> {
        let mut found = Found::default();
        found.add(Path::new(name), text).map(|()| found).map_err(|error| error.to_string())
    }

    #[test]
    fn yaml_toml_and_json_are_one() {
        let yaml = "http:\n  routers:\n    r: &r\n      rule: Host(`a.org`)\n      service: s\n      priority: 012\n    q:\n      <<: *r\n      tls: {}\n";
        let toml = "[http.routers.r]\nrule = \"Host(`a.org`)\"\nservice = \"s\"\npriority = 10\n[http.routers.q]\nrule = \"Host(`a.org`)\"\nservice = \"s\"\npriority = 10\ntls = {}\n";
        let json = r#"{"http":{"routers":{"r":{"rule":"Host(`a.org`)","service":"s","priority":10},"q":{"rule":"Host(`a.org`)","service":"s","priority":10,"tls":{}}}}}"#;
        let yaml = read_one("a.yml", yaml).unwrap().pieces;
        assert_eq!(yaml.len(), 2);
        assert_eq!(yaml, read_one("a.TOML", toml).unwrap().pieces);
        assert_eq!(yaml, read_one("a.json", json).unwrap().pieces);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_place() {
        for (name, text, said) in [
            ("a.yml", "http:\n  routers:\n    r:\n      rule: Host(`{{ env \"X\" }}`)\n", "a.yml:4: has a template"),
            ("a.txt", "", "a.txt: is called neither"),
            ("a.yml", "log:\n  level: DEBUG\n", "a.yml: has no http"),
            ("a.yml", "a: 1\na: 2\n", "a.yml: "),
            ("a.yml", "http:\n  routers:\n    r:\n      rulle: x\n", "a.yml: http.routers.r.rulle: unknown field"),
            (
                "a.yml",
                "http:\n  routers:\n    r@file:\n      rule: x\n      service: s\n",
                "a.yml: http.router r@file: ",
            ),
            (
                "a.yml",
                "http:\n  middlewares:\n    m:\n      addPrefix:\n        prefix: ''\n",
                "a.yml: http.middleware m: ",
            ),
        ] {
            let error = read_one(name, text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_in_two_files_names_both() {
        let text = "http:\n  middlewares:\n    gzip:\n      compress: {}\n";
        let mut found = read_one("a.yml", text).unwrap();
        let error = found.add(Path::new("b.yml"), text).unwrap_err().to_string();
        assert!(error.contains("a.yml") && error.contains("b.yml") && error.contains("gzip"), "{error}");
    }

    #[test]
    fn a_service_without_servers_is_left_out_and_said() {
        let found =
            read_one("a.yml", "http:\n  services:\n    s:\n      loadBalancer:\n        servers: []\n").unwrap();
        assert!(found.pieces.is_empty());
        assert_eq!(found.left_out.len(), 1);
    }

    #[test]
    fn braces_of_our_export_are_no_template() {
        let text = format!("http:\n  middlewares:\n    m:\n      addPrefix:\n        prefix: '/{BRACES}x}}}}'\n");
        let found = read_one("a.yml", &text).unwrap();
        let piece = found.pieces.get(&(Kind::HttpMiddleware, "m".to_owned())).unwrap();
        assert!(piece.to_json().contains("/{{x}}"), "{piece:?}");
    }
}
