//! A quiet hour of real certificates, recorded and played again: nothing may be said of it.
//!
//! `tests/data/quiet-certificates.gz` holds what two Traefiks 3.7.15 served and kept, every 5 s for more than an hour: the
//! one `idle`, with a certificate of 90 days, the other `busy`, which got a new one of pebble's whenever Traefik looked, each
//! minute, as it does with a lifetime of 21 min. Before it the roots of both. The keys were never written.

use std::io::Read as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::pki_types::CertificateDer;

use super::*;

/// When it was seen, since the recording began and by the hour; of which Traefik; what of it; and that.
struct Seen {
    now: Now,
    traefik: String,
    what: String,
    text: String,
}

fn recording() -> Vec<Seen> {
    let mut text = String::new();
    let packed = include_bytes!("../../tests/data/quiet-certificates.gz").as_slice();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let records = text.split("@ ").skip(1).map(|record| {
        let (head, text) = record.split_once('\n').unwrap();
        let [wall, boot, traefik, what] = head.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let now = Now {
            boot: Duration::from_millis(boot.parse().unwrap()),
            wall: jiff::Timestamp::from_millisecond(wall.parse().unwrap()).unwrap(),
            is_trusted: true,
        };
        Seen { now, traefik: traefik.to_owned(), what: what.to_owned(), text: text.to_owned() }
    });
    records.collect()
}

/// In base64, one a line.
fn certificates(text: &str) -> Vec<CertificateDer<'static>> {
    text.lines().map(|line| CertificateDer::from(STANDARD.decode(line).unwrap())).collect()
}

#[test]
fn nothing_is_said_of_a_quiet_hour() {
    let recording = recording();
    for traefik in ["idle", "busy"] {
        let mine: Vec<&Seen> = recording.iter().filter(|seen| seen.traefik == traefik).collect();
        let name = format!("{traefik}.example.test");
        let root = mine.iter().find(|seen| seen.what == "root").unwrap();
        let settings = config::Certificates {
            acme_json: vec![PathBuf::from("acme.json")],
            entry_points: [("websecure".to_owned(), SocketAddr::from(([127, 0, 0, 1], 443)))].into(),
            ..config::Certificates::default()
        };
        let mut group = Certificates::new(&settings);
        group.authorities = Arc::new(Authorities::of(&certificates(&root.text)));
        let mut expected = Expected::default();
        expected.policy.certificates.names = vec![name.clone()];
        let (wanted, _) = wanted::wanted(&expected, &settings.entry_points);
        let (mut first, mut last, mut leaves, mut file) = (None, Duration::ZERO, BTreeSet::new(), "");
        for seen in mine.iter().filter(|seen| seen.what != "root") {
            if seen.what == "stored" {
                // As when its file did not change.
                if std::mem::replace(&mut file, &seen.text) == seen.text {
                    continue;
                }
                let content = match stored::parse(seen.text.trim().as_bytes(), &group.authorities, seen.now.wall) {
                    Ok(stored) => Content::Whole(Arc::new(stored)),
                    Err(why) => Content::Torn(why),
                };
                group.storages[0].take(Some(Storage::fake(0o600, content)), settings.torn, seen.now.boot);
                continue;
            }
            let chain = certificates(&seen.text);
            leaves.insert(chain[0].to_vec());
            let at = settings.entry_points["websecure"];
            let (heard, digest) = hear(Answer::Chain(chain), &group.authorities, group.asked.get(&name), seen.now);
            group.asked.insert(name.clone(), Asked { at, when: seen.now.boot, heard, digest, is_ok: false });
            if first.is_none() {
                first = Some(seen.now.boot); // what is stored comes next
                continue;
            }
            let samples = group.judge(&expected, &wanted, &[], seen.now);
            let bad: Vec<_> = samples.iter().filter(|sample| sample.status != Status::Ok).collect();
            assert!(bad.is_empty(), "{traefik} at {}: {bad:#?}", seen.now.wall);
            assert_eq!(samples.len(), 3, "{samples:#?}");
            last = seen.now.boot;
        }
        println!("{traefik}: {} certificates", leaves.len());
        assert!(last > first.unwrap() + Duration::from_hours(1), "{traefik}");
        assert!(if traefik == "busy" { leaves.len() > 20 } else { leaves.len() == 1 }, "{traefik}: {}", leaves.len());
    }
}
