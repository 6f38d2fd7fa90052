//! From a generator's YAML files to rows, under load: side by side, compared, switched, and back, and no request is lost.
//! What becomes a row, and that an import answers as its files do, is in `import`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use charliehub_tests::{Answer, Backend, Client, Home, Row, Switch, Traefik, World, measured, secs, until};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// As the seed's generator writes it: names, an allow-list, a wildcard, a path above a name, a redirect, the broker.
const ROUTES: &str = r#"
http:
  routers:
    auth: {rule: "Host(`auth.test`)", entryPoints: [websecure], service: hello, tls: {}}
    docs: {rule: "Host(`docs.test`)", entryPoints: [websecure], service: hello, tls: {}}
    docs-admin: {rule: "Host(`docs.test`) && PathPrefix(`/admin`)", entryPoints: [websecure], service: other, tls: {}}
    grafana: {rule: "Host(`grafana.test`)", entryPoints: [websecure], service: hello, tls: {}, middlewares: [internal]}
    customers: {rule: 'HostRegexp(`^[^.]+\.wild\.test\.?$`)', entryPoints: [websecure], service: other, tls: {}}
    one-customer: {rule: "Host(`a.wild.test`)", entryPoints: [websecure], service: hello, tls: {}}
    old: {rule: "Host(`old.test`)", entryPoints: [websecure], service: hello, tls: {}, middlewares: [moved]}
    plain: {rule: "Host(`plain.test`)", entryPoints: [web], service: hello}
    limited: {rule: "Host(`limited.test`)", entryPoints: [web], service: other, priority: 7, middlewares: [slow]}
  middlewares:
    internal: {ipAllowList: {sourceRange: [127.0.0.9]}}
    moved: {redirectRegex: {regex: "^.*$", replacement: "https://docs.test/new", permanent: true}}
    slow: {rateLimit: {average: 100000, burst: 1000}}
  services:
    hello: {loadBalancer: {servers: [{url: "http://HELLO"}]}}
    other: {loadBalancer: {servers: [{url: "http://OTHER"}]}}
tcp:
  routers:
    broker: {rule: "HostSNI(`mqtt.test`)", entryPoints: [mqtt], service: broker, tls: {}}
  services:
    broker: {loadBalancer: {servers: [{address: "ECHO"}]}}
"#;

/// From where, what, and what it must answer: at every moment.
const REQUESTS: [(&str, &str, &str); 11] = [
    ("127.0.0.1", "https://auth.test/", "200 hello"),
    ("127.0.0.1", "https://docs.test/", "200 hello"),
    ("127.0.0.1", "https://docs.test/admin/x", "200 other"),
    ("127.0.0.1", "https://grafana.test/", "403 Forbidden"),
    ("127.0.0.9", "https://grafana.test/", "200 hello"),
    ("127.0.0.1", "https://a.wild.test/", "200 other"), // the wildcard's rule is the longer one
    ("127.0.0.1", "https://b.wild.test/", "200 other"),
    ("127.0.0.1", "https://old.test/a", "308 https://docs.test/new"),
    ("127.0.0.1", "http://plain.test/", "200 hello"),
    ("127.0.0.1", "http://limited.test/", "200 other"),
    ("127.0.0.1", "https://nobody.test/", "404 404 page not found"),
];

fn noticed(answer: &Answer) -> String {
    let location = answer.header("location");
    let text = if location.is_empty() { answer.text().trim().to_owned() } else { location.to_owned() };
    format!("{} {text}", if answer.status == 301 { 308 } else { answer.status })
}

/// Requests, one after the other from each of a few who ask, and what was not answered as it must be.
struct Load {
    stop: CancellationToken,
    asked: Arc<AtomicU64>,
    wrong: Arc<Mutex<BTreeMap<String, u64>>>,
    slowest: Arc<Mutex<Duration>>,
}

impl Load {
    fn start(home: &Home, ask: impl Fn(&str) -> Client + Send + Sync + 'static) -> Self {
        let ask = Arc::new(ask);
        let this = Self {
            stop: CancellationToken::new(),
            asked: Arc::default(),
            wrong: Arc::default(),
            slowest: Arc::default(),
        };
        for worker in 0..3 {
            let (stop, asked, wrong, slowest) =
                (this.stop.clone(), this.asked.clone(), this.wrong.clone(), this.slowest.clone());
            let ask = ask.clone();
            home.tasks().spawn(async move {
                for (from, url, wanted) in REQUESTS.iter().cycle().skip(worker * 4) {
                    if stop.is_cancelled() {
                        return;
                    }
                    let began = Instant::now();
                    let found = match ask(from).get(url).await {
                        Ok(answer) => noticed(&answer),
                        Err(error) => format!("{error:#}"),
                    };
                    if found != *wanted {
                        *wrong
                            .lock()
                            .unwrap()
                            .entry(format!("{url} from {from}: {found}, not {wanted}"))
                            .or_default() += 1;
                    }
                    let mut slowest = slowest.lock().unwrap();
                    *slowest = began.elapsed().max(*slowest);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        this
    }

    /// Lets it go on for so many requests more, all of which must be right.
    async fn goes_on(&self, requests: u64, during: &str) {
        let goal = self.asked.load(Ordering::Relaxed) + requests;
        until(&format!("{requests} more requests: {during}"), secs(60), async || {
            let asked = self.asked.load(Ordering::Relaxed);
            if asked >= goal { Ok(()) } else { Err(asked) }
        })
        .await;
        assert_eq!(*self.wrong.lock().unwrap(), BTreeMap::new(), "{during}");
    }

    fn ends(self) {
        self.stop.cancel();
        println!("{} requests", self.asked.load(Ordering::Relaxed));
        measured("the slowest", *self.slowest.lock().unwrap());
    }
}

async fn until_all_right(traefik: &Traefik) {
    for (from, url, wanted) in REQUESTS {
        until(url, secs(20), async || {
            let answer =
                traefik.client().from(from.parse().unwrap()).get(url).await.map_err(|error| format!("{error:#}"))?;
            let found = noticed(&answer);
            if found == wanted { Ok(()) } else { Err(format!("{found}, not {wanted}")) }
        })
        .await;
    }
    until("the broker", secs(20), async || traefik.tls("mqtt.test").await.map(drop).map_err(|e| format!("{e:#}")))
        .await;
}

/// How many routers of a provider run.
async fn routers_of(traefik: &Traefik, provider: &str) -> Result<usize, String> {
    let answer = traefik.try_api("/api/http/routers?per_page=1000").await.map_err(|error| format!("{error:#}"))?;
    let all: Value = serde_json::from_slice(&answer.body).map_err(|_| answer.text())?;
    let ours = |router: &&Value| router["provider"] == provider && router["status"] == "enabled";
    Ok(all.as_array().into_iter().flatten().filter(ours).count())
}

async fn until_routers(traefik: &Traefik, provider: &str, right: impl Fn(usize) -> bool) {
    until(&format!("routers of {provider}"), secs(20), async || {
        let count = routers_of(traefik, provider).await?;
        if right(count) { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
}

fn write(path: &Path, text: &str) {
    let draft = path.with_extension("tmp"); // no name that Traefik reads
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(draft, path).unwrap();
}

#[tokio::test]
async fn the_move_and_the_way_back_lose_no_request() {
    let world = World::new().await;
    let home = &world.home;
    let (hello, other) = (world.backend("hello").await, world.backend("other").await);
    let echo = Backend::echo(home).await;
    let directory = home.join("dynamic");
    std::fs::create_dir(&directory).unwrap();
    let file: PathBuf = directory.join("routes.yml");
    let text = ROUTES.replace("HELLO", &hello.address().to_string()).replace("OTHER", &other.address().to_string());
    write(&file, &text.replace("ECHO", &echo.address().to_string()));
    let before = Traefik::from_directory(home, "before", &directory).await;
    until_all_right(&before).await;
    // New connections go where a rule of the firewall, here a relay, leads them; those that are open stay where they are.
    let (web, websecure) = (Switch::to(home, before.web().port()), Switch::to(home, before.websecure().port()));
    // The relay hides who asks, so who asks from elsewhere is led by hand.
    let relayed = before.client_at(web.address(), websecure.address());
    let elsewhere = Arc::new(Mutex::new(before.client()));
    let led = elsewhere.clone();
    let load = Load::start(home, move |from| match from {
        "127.0.0.1" => relayed.clone(),
        other => led.lock().unwrap().clone().from(other.parse().unwrap()),
    });
    let switch = |to: &Traefik| {
        *elsewhere.lock().unwrap() = to.client();
        web.turn_to(to.web().port());
        websecure.turn_to(to.websecure().port());
    };
    load.goes_on(60, "the generator's file alone").await;

    // Side by side. The second import finds nothing to do: rows and files say the same.
    let path = directory.to_str().unwrap();
    world.provider.must(&["import", path, "--dry-run"]).await;
    world.provider.must(&["import", path, "--reason", "moving over"]).await;
    let again: Value = serde_json::from_str(&world.provider.must(&["import", path, "--json"]).await).unwrap();
    assert_eq!(again["changes"], 0, "{again:#}");
    let token = world.provider.token("traefik").await;
    let both = Traefik::with_directory(home, "hub2", world.provider.address(), &token, &directory).await;
    until_routers(&both, "file", |count| count == 9).await;
    until_routers(&both, "http", |count| count >= 9).await;
    until_all_right(&both).await;
    load.goes_on(60, "a second Traefik beside it").await;

    // Switched, while both have every name: which of two equal routers answers is chance, and changes with each reload.
    switch(&both);
    load.goes_on(100, "switched").await;
    for n in 0..5 {
        world.insert(&Row::http(&format!("new{n}.test"), hello.address())).await;
        both.until_answers(&format!("http://new{n}.test/"), "hello").await;
        load.goes_on(30, "reloads with every name in both").await;
    }

    // The file goes; the rows alone answer.
    let away = home.join("routes.yml.away");
    std::fs::rename(&file, &away).unwrap();
    until_routers(&both, "file", |count| count == 0).await;
    until_all_right(&both).await;
    load.goes_on(100, "without the file").await;

    // And back: a file of the newest rows in its place, and the Traefik of before.
    let exported = world.provider.must(&["export"]).await;
    write(&file, &exported);
    until_routers(&before, "file", |count| count >= 14).await;
    until_routers(&both, "file", |count| count >= 14).await;
    until_all_right(&before).await;
    load.goes_on(60, "the file is back").await;
    switch(&before);
    load.goes_on(100, "switched back").await;
    assert_eq!(before.get("http://new4.test/").await.text(), "hello", "what was made meanwhile came along");
    drop(both);
    load.goes_on(60, "as before").await;
    load.ends();
}

/// Why the handbook says: what TLS calls `default` is in one place.
#[tokio::test]
async fn default_tls_options_in_both_places_close_the_door() {
    let world = World::new().await;
    let hello = world.backend("hello").await;
    world.insert(&Row::https("a.test", hello.address())).await;
    let directory = world.home.join("dynamic");
    std::fs::create_dir(&directory).unwrap();
    let file = directory.join("tls.yml");
    write(&file, "tls: {options: {default: {minVersion: VersionTLS13}}}\n");
    let token = world.provider.token("traefik").await;
    let traefik = Traefik::with_directory(&world.home, "hub2", world.provider.address(), &token, &directory).await;
    traefik.until_answers("https://a.test/", "hello").await;
    let said: Value =
        serde_json::from_str(&world.provider.must(&["import", file.to_str().unwrap(), "--json"]).await).unwrap();
    assert!(said["warnings"][0].as_str().is_some_and(|said| said.contains("every handshake")), "{said:#}");
    until("nobody gets in", secs(20), async || match traefik.client().get("https://a.test/").await {
        Err(_) => Ok(()),
        Ok(answer) => Err(noticed(&answer)),
    })
    .await;
    assert!(traefik.log().contains("Default TLS Options defined in multiple providers"), "and Traefik says why");
    std::fs::remove_file(&file).unwrap();
    measured("open again without the file", traefik.until_answers("https://a.test/", "hello").await);
}
