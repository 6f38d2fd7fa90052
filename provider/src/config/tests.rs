use std::fs;

use charliehub_proto::event::EventKind;

use super::*;

/// A configuration from a file's text and variables.
fn read(file: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Config, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("provider.toml");
    fs::write(&path, file).unwrap();
    let environment: Vec<_> = environment.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    Config::from_sources(&Flags { config: Some(path), ..flags }, &environment, false)
}

/// A Traefik of which no more is configured.
fn named(instance: &str, api: &str) -> Traefik {
    Traefik {
        instance: instance.to_owned(),
        api: Some(api.to_owned()),
        authorization: None,
        ca_file: None,
        host: None,
        min_version: None,
        selector: None,
    }
}

fn refused(file: &str, environment: &[(&str, &str)]) -> String {
    let error = read(file, environment, Flags::default()).unwrap_err().to_string();
    assert!(!error.contains('\n'), "one line: {error}");
    error.rsplit_once("provider.toml").map_or(error.clone(), |(_, rest)| rest.to_owned())
}

#[test]
fn nothing_set_is_a_whole_configuration() {
    let config = Config::from_sources(&Flags::default(), &[("HOME".to_owned(), "/home/op".to_owned())], false).unwrap();
    assert_eq!(config.serve.listen.to_string(), "127.0.0.1:8001");
    assert_eq!(config.serve.data_dir, Path::new("/home/op/.local/state/charliehub"));
    assert_eq!(config.serve.max_wait, Duration::from_mins(1));
    assert_eq!(config.database.url, None);
    assert_eq!(config.self_url(config.serve.listen).as_deref(), Some("http://127.0.0.1:8001"));
    assert_eq!(config.history, History { keep: 100, age: Duration::from_hours(720), max_bytes: 2 << 30 });
}

#[test]
fn a_whole_file_is_read() {
    let config = read(
        r#"
        [serve]
        listen = "0.0.0.0:8443"
        tls_certificate = "/etc/edge/tls.crt"
        tls_key = "/etc/edge/tls.key"
        allowed_hosts = ["Edge.Example.org"]
        [database]
        url = "postgresql://edge@db/edge"
        [compile]
        entry_points = ["web", "websecure"]
        cert_resolvers = ["letsencrypt"]
        default_resolver = "letsencrypt"
        default_certificate = { cert_file = "/c.pem", key_file = "/k.pem" }
        self_url = "https://provider.internal:8443/"
        [access]
        internal_networks = ["10.44.0.0/16", "10.35.0.0/16"]
        forward_auth = { address = "http://authelia:9091/api/authz/forward-auth" }
        [guard]
        max_removed_percent = 50
        [[traefik]]
        instance = "hub2"
        api = "http://127.0.0.1:8080"
        [log]
        format = "json"
        "#,
        &[],
        Flags::default(),
    )
    .unwrap();
    assert_eq!(config.self_url(config.serve.listen).as_deref(), Some("https://provider.internal:8443"));
    assert_eq!(config.hosts().into_iter().collect::<Vec<_>>(), ["edge.example.org", "provider.internal"]);
    assert_eq!(config.compile.default_certificate, Some(("/c.pem".to_owned(), "/k.pem".to_owned())));
    assert_eq!(config.access.internal_networks[0].to_string(), "10.35.0.0/16");
    assert_eq!(config.access.forward_auth.unwrap().auth_response_headers[0], "Remote-User");
    assert_eq!(config.traefik, [named("hub2", "http://127.0.0.1:8080")]);
    assert_eq!((config.guard.max_removed_percent, config.log.format), (50, Format::Json));
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_its_remedy() {
    for (file, message) in [
        ("[serve]\nlistn = \"x\"", ":2: unknown key `serve.listn`; did you mean `serve.listen`?"),
        ("[server]\nlisten = \"x\"", ":1: unknown section `server`; did you mean `serve`?"),
        ("listen = \"x\"", ":1: unknown section `listen`; did you mean `serve.listen`?"),
        ("serve = 1", ":1: `serve` has keys of its own; write [serve] and its keys"),
        (
            "[compile.default_certificate]\ncert = \"x\"",
            ":2: unknown key `compile.default_certificate.cert`; did you mean `compile.default_certificate.cert_file`?",
        ),
        ("[[traefik]]\napi_url = \"x\"", ":2: unknown key `api_url` in [[traefik]]; did you mean `api`?"),
        ("[[traefik]]\ninstance = \"a\"\nshare = \"9/8\"", ":3: `9/8` is no share; write it as 3/8"),
        ("[[traefik]]\ninstance = \"a\"\nshare = 3", ":3: 3 has the wrong type; write text"),
        ("[[traefik]]\ninstance = \"a\"\nsite = \"Berlin!\"", ":3: `Berlin!` is not the name of a site"),
        (
            "[[traefik]]\ninstance = \"a\"\nlabels = [\"gold\"]",
            ":3: `gold` is not a label and its value; write each as",
        ),
        ("[[traefik]]\ninstance = \"a\"\nlabels = [\"t=a\", \"t=b\"]", ":3: two values for the label `t`"),
        ("[[traefik]]\napi = \"http://t\"", ":1: [[traefik]] without `instance`; write `instance`"),
        ("[serve]\nlisten = 8001", ":2: 8001 has the wrong type; write text that is not empty, in quotes"),
        ("[serve]\nlisten = \"8001\"", ":2: `8001` is not an address to listen on; write ADDRESS:PORT"),
        ("[serve]\nlisten = \"0.0.0.0:8001\"", ":2: 0.0.0.0:8001 is not loopback"),
        ("[serve]\ninsecure = \"true\"", ":2: \"true\" has the wrong type; write true or false, without quotes"),
        ("[serve]\nmax_wait = \"55\"", ":2: `55` is not a duration; write a whole number above 0 and ms, s, m, h or d"),
        (
            "[history]\nmax_bytes = \"2T\"",
            ":2: \"2T\" has the wrong type; write a whole number of bytes above 0, or one with k",
        ),
        ("[history]\nmax_bytes = 0", ":2: 0 has the wrong type; write a whole number of bytes above 0"),
        ("[serve]\nmax_wait = \"2h\"", ":2: a poll held for more than an hour"),
        (
            "[serve]\ntls_key = \"k\"",
            ":2: `serve.tls_key` is set and `serve.tls_certificate` is not; set both, or neither",
        ),
        (
            "[serve]\nclient_ca = \"ca.pem\"",
            ":2: `serve.client_ca` is set and `serve.tls_certificate` is not: clients show a certificate over TLS only; set",
        ),
        ("[serve]\nallowed_hosts = [\"a:80\"]", ":2: `a:80` is not a host name"),
        ("[serve]\nmax_wait = 1.5", ":2: `serve.max_wait` cannot be a float"),
        (
            "[access]\ninternal_networks = [\"10.44.1.0/16\"]",
            ":2: `10.44.1.0/16` has bits set behind its prefix; write 10.44.0.0/16",
        ),
        ("[access]\ninternal_networks = [\"10.44.1.7\"]", ":2: `10.44.1.7` is not a network; write 10.44.1.7/32"),
        ("[access]\ninternal_networks = [\"0.0.0.0/0\"]", ":2: `0.0.0.0/0` would make everybody internal"),
        ("[access]\ntrusted_proxies = [\"127.0.0.1/32\"]", ":2: `access.trusted_proxies` is set and"),
        (
            "[access]\ntrusted_proxies = [\"::1/128\"]\ngroup_roles = [\"ops\"]",
            ":3: `ops` is not a group and its role; write it as ops=editor",
        ),
        (
            "[access]\ntrusted_proxies = [\"::1/128\"]\ngroup_roles = [\"ops=traefik\"]",
            ":3: `ops=traefik` is not a group and its role",
        ),
        ("[access]\nuser_header = \"a b\"", ":2: `a b` is no name of a header"),
        ("[serve]\nrate_limit = 0", ":2: "),
        ("[access.forward_auth]\nauth_response_headers = [\"a\"]", ":2: `forward_auth` has no `address`"),
        ("[guard]\nmax_removed_percent = 101", ":2: 101 has the wrong type; write a whole number from 0 to 100"),
        (
            "[compile]\ncert_resolvers = [\"le\"]\ndefault_resolver = \"el\"",
            ":3: `el` is not in `compile.cert_resolvers`",
        ),
        ("[compile]\ndefault_certificate = { cert_file = \"c\" }", ":2: `default_certificate` has `cert_file` alone"),
        ("[compile]\nself_url = \"edge:80\"", ":2: `edge:80` is not a URL; write it as http://HOST:PORT"),
        ("[database]\nurl = \"mysql\"", ":2: `database.url` is neither a URL of PostgreSQL nor"),
        ("[database]\npassword = \"x\"", ":2: a password without `database.url`"),
        ("[database]\nurl = \"a=b\"\nurl_file = \"x\"", ":3: `database.url` and `database.url_file` are both set"),
        ("[log]\nformat = \"xml\"", ":2: `xml` is no log format; use text or json"),
        ("[serve]\nlisten = ", ":2: "),
        ("[serve]\n[serve]", ":2: duplicate key"),
    ] {
        let error = refused(file, &[]);
        assert!(error.starts_with(message), "{file}\n  gives {error}\n  not   {message}");
    }
}

/// 24 bytes in base64.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn a_webhook_is_told_all_but_acks_when_it_names_no_kinds() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let file = format!(
        "[[webhook]]\nurl = \"https://hooks.example.org/path-is-secret\"\nsecret = \"{SECRET}\"\nkinds = [\"late\", \"ack\"]\n\
         [[webhook]]\nurl = \"https://hooks.example.org\"\nsecret_file = \"{}\"\nca_file = \"/ca.pem\"",
        secret.display()
    );
    let config = read(&file, &[], Flags::default()).unwrap();
    let [first, second] = &config.webhooks[..] else { panic!("{:?}", config.webhooks) };
    assert_eq!((&*first.name, &*second.name), ("hooks.example.org", "hooks.example.org#2"));
    assert_eq!((first.key.0.len(), &first.key), (24, &second.key));
    assert_eq!((first.kinds.len(), second.kinds.len()), (2, EventKind::ALL.len() - 1));
    assert!(!second.kinds.contains(&EventKind::Ack) && second.ca_file.is_some());
    assert!(!format!("{:?}", first.key).contains("50"));
    let variables = [("CHARLIEHUB_WEBHOOK_URL", "http://127.0.0.1:9"), ("CHARLIEHUB_WEBHOOK_SECRET", SECRET)];
    let one = read(&file, &variables, Flags::default()).unwrap().webhooks;
    assert_eq!(one.iter().map(|webhook| &*webhook.name).collect::<Vec<_>>(), ["127.0.0.1:9"]);
}

#[test]
fn what_is_wrong_with_a_webhook_is_named_without_its_secrets() {
    let url = "url = \"https://h.test/x\"";
    let secret = format!("secret = \"{SECRET}\"");
    for (file, message) in [
        ("webhook = 1".to_owned(), ":1: `webhook` is a list; write [[webhook]] with `url`"),
        ("webhook = [1]".to_owned(), ":1: `webhook` holds tables; write [[webhook]]"),
        ("[[webhok]]".to_owned(), ":1: unknown section `webhok`; did you mean `webhook`?"),
        ("[[webhook]]\nulr = \"x\"".to_owned(), ":2: unknown key `ulr` in [[webhook]]; did you mean `url`?"),
        (format!("[[webhook]]\n{secret}"), ":1: [[webhook]] without `url`; write"),
        (
            format!("[[webhook]]\n{url}"),
            ":1: [[webhook]] without `secret` or `secret_file`; make one with: echo whsec_",
        ),
        (format!("[[webhook]]\n{url}\nsecret = \"hunter2\""), ":3: the secret is not `whsec_` and 24 to 64 bytes"),
        (format!("[[webhook]]\n{url}\nsecret = \"whsec_c2hvcnQ=\""), ":3: the secret is not `whsec_` and 24 to 64"),
        (format!("[[webhook]]\n{url}\n{secret}\nsecret_file = \"f\""), ":4: `secret` and `secret_file` are both set"),
        (format!("[[webhook]]\nurl = \"h.test\"\n{secret}"), ":2: `url` is not a URL of http or https; write it as"),
        (format!("[[webhook]]\nurl = \"ftp://h.test\"\n{secret}"), ":2: `url` is not a URL of http or https"),
        (format!("[[webhook]]\nurl = \"https://a:hunter2@h.test\"\n{secret}"), ":2: a login in `url` is not sent"),
        (
            format!("[[webhook]]\n{url}\n{secret}\nkinds = [\"acks\"]"),
            ":4: `acks` is no kind of event; did you mean `ack`?",
        ),
        (format!("[[webhook]]\n{url}\n{secret}\nkinds = []"), ":4: `kinds` is empty; leave it out for all but ack"),
    ] {
        let error = refused(&file, &[]);
        assert!(error.starts_with(message), "{file}\n  gives {error}\n  not   {message}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    assert_eq!(
        refused("", &[("CHARLIEHUB_WEBHOOK_SECERT", "x")]),
        "CHARLIEHUB_WEBHOOK_SECERT: there is no such setting; did you mean `CHARLIEHUB_WEBHOOK_SECRET`?"
    );
}

#[test]
fn an_unknown_variable_is_refused() {
    assert_eq!(
        refused("", &[("CHARLIEHUB_SERVE_LISTEM", "127.0.0.1:1")]),
        "CHARLIEHUB_SERVE_LISTEM: there is no such setting; did you mean `CHARLIEHUB_SERVE_LISTEN`?"
    );
    assert!(refused("", &[("CHARLIEHUB_GUARD_MAX_REMOVED", "many")]).contains("write a whole number"));
    assert!(refused("", &[("CHARLIEHUB_TRAEFIK_API", "http://t")]).contains("half of a Traefik"));
}

#[test]
fn the_provider_that_commands_ask_is_no_setting_and_no_mistake() {
    let config = read("", &[("CHARLIEHUB_SERVER", "https://edge.example.org")], Flags::default()).unwrap();
    assert_eq!(config.serve.listen.to_string(), "127.0.0.1:8001");
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = "[serve]\nlisten = \"127.0.0.1:1\"\ndata_dir = \"/file\"\nmax_wait = \"1s\"";
    let environment = [("CHARLIEHUB_SERVE_LISTEN", "127.0.0.1:2"), ("CHARLIEHUB_SERVE_DATA_DIR", "/environment")];
    let flags = Flags { listen: Some("localhost:3".to_owned()), ..Flags::default() };
    let serve = read(file, &environment, flags).unwrap().serve;
    assert_eq!(serve.listen.to_string(), "127.0.0.1:3");
    assert_eq!(serve.data_dir, Path::new("/environment"));
    assert_eq!(serve.max_wait, Duration::from_secs(1));
}

#[test]
fn the_environment_holds_lists_tables_and_switches() {
    let config = read(
        "[[traefik]]\ninstance = \"old\"\napi = \"http://old\"",
        &[
            ("CHARLIEHUB_COMPILE_ENTRY_POINTS", "web, websecure"),
            ("CHARLIEHUB_ACCESS_FORWARD_AUTH_ADDRESS", "http://authelia"),
            ("CHARLIEHUB_DATABASE_MIGRATE", "false"),
            ("CHARLIEHUB_TRAEFIK_API", "http://new/"),
            ("CHARLIEHUB_TRAEFIK_INSTANCE", "hub2"),
            ("CHARLIEHUB_LOG_FILTER", ""),
        ],
        Flags::default(),
    )
    .unwrap();
    assert_eq!(config.compile.entry_points.unwrap().len(), 2);
    assert!(config.access.forward_auth.is_some() && !config.database.migrate);
    assert_eq!(config.traefik, [named("hub2", "http://new")]);
}

#[test]
fn the_database_url_comes_from_the_strongest_source() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "postgres://from-a-file\n").unwrap();
    fs::write(directory.path().join("database.url"), "postgres://from-a-credential").unwrap();
    let secret = secret.display().to_string();
    let credentials = directory.path().display().to_string();
    let url = |file: &str, environment: &[(&str, &str)], flag: Option<&str>| {
        let flags = Flags { database_url: flag.map(str::to_owned), ..Flags::default() };
        read(file, environment, flags).unwrap().database.url.unwrap().reveal().to_owned()
    };
    let file = "[database]\nurl = \"postgres://written\"";
    assert_eq!(url(file, &[], None), "postgres://written");
    assert_eq!(url(&format!("[database]\nurl_file = \"{secret}\""), &[], None), "postgres://from-a-file");
    assert_eq!(url(file, &[("CREDENTIALS_DIRECTORY", &credentials)], None), "postgres://from-a-credential");
    let both = [("CREDENTIALS_DIRECTORY", credentials.as_str()), ("DATABASE_URL", "postgres://common")];
    assert_eq!(url(file, &both, None), "postgres://common");
    let ours = [("CHARLIEHUB_DATABASE_URL_FILE", secret.as_str()), ("DATABASE_URL", "postgres://common")];
    assert_eq!(url(file, &ours, None), "postgres://from-a-file");
    let ours = [("CHARLIEHUB_DATABASE_URL", "postgres://ours"), ("DATABASE_URL", "postgres://common")];
    assert_eq!(url(file, &ours, None), "postgres://ours");
    assert_eq!(url(file, &ours, Some("postgres://flag")), "postgres://flag");
}

#[test]
fn a_number_of_bytes_may_have_a_unit() {
    let of =
        |file: &str, environment: &[(&str, &str)]| read(file, environment, Flags::default()).unwrap().history.max_bytes;
    for (written, bytes) in [("65536", 65_536), ("\"65536\"", 65_536), ("\"64k\"", 65_536), ("\"512M\"", 512 << 20)] {
        assert_eq!(of(&format!("[history]\nmax_bytes = {written}"), &[]), bytes, "{written}");
    }
    assert_eq!(of("[history]\nmax_bytes = 1", &[("CHARLIEHUB_HISTORY_MAX_BYTES", "3G")]), 3 << 30);
    let most = format!("[history]\nmax_bytes = \"{}G\"", u64::MAX);
    assert!(refused(&most, &[]).contains("a whole number of bytes"));
}

#[test]
fn a_secret_is_never_shown() {
    let config = read("[database]\nurl = \"postgres://edge:hunter2@db/edge\"", &[], Flags::default()).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn plain_http_beyond_loopback_is_a_decision() {
    let file = "[serve]\nlisten = \"0.0.0.0:8001\"";
    assert!(refused(file, &[]).contains("--insecure"));
    let config = read(file, &[], Flags { insecure: true, ..Flags::default() }).unwrap();
    assert_eq!(config.self_url(config.serve.listen), None, "nobody can call 0.0.0.0");
    assert!(read("[serve]\nlisten = \"[::1]:0\"", &[], Flags::default()).is_ok());
}

#[test]
fn state_goes_where_systemd_root_or_the_user_keep_it() {
    let directory = |environment: &[(&str, &str)], root| {
        let environment: Vec<_> = environment.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        Config::from_sources(&Flags::default(), &environment, root).unwrap().serve.data_dir
    };
    assert_eq!(directory(&[("STATE_DIRECTORY", "/a:/b")], true), Path::new("/a"));
    assert_eq!(directory(&[("HOME", "/root")], true), Path::new("/var/lib/charliehub"));
    assert_eq!(directory(&[("HOME", "/h"), ("XDG_STATE_HOME", "/x")], false), Path::new("/x/charliehub"));
}

#[test]
fn a_password_of_its_own_joins_the_url() {
    for url in ["postgres://edge@db/edge", "postgres://edge@db/edge?connect_timeout=3", "host=db user=edge dbname=edge"]
    {
        let file = format!("[database]\nurl = \"{url}\"\npassword = '''a'b\\c&d %'''");
        let config = read(&file, &[], Flags::default()).unwrap();
        let joined: tokio_postgres::Config = config.database.connection_string().unwrap().reveal().parse().unwrap();
        assert_eq!(joined.get_password(), Some(br"a'b\c&d %".as_slice()), "{url}");
        assert_eq!(joined.get_dbname(), Some("edge"));
    }
}

#[test]
fn every_secret_may_be_what_a_command_prints() {
    let file = r#"
        [database]
        url_file = "exec:/bin/echo postgres://edge@db/edge"
        password_file = "exec:/bin/echo hunter2"
        [[traefik]]
        instance = "hub2"
        api = "http://127.0.0.1:8080"
        token_file = "exec:/bin/echo of-the-api"
        [[traefik]]
        instance = "hub3"
        api = "http://127.0.0.1:8081"
        user = "u"
        password_file = "exec:/bin/echo p"
        [[webhook]]
        url = "https://hooks.example.org"
        secret_file = "exec:/bin/echo SECRET"
        "#;
    let config = read(&file.replace("SECRET", SECRET), &[], Flags::default()).unwrap();
    assert!(config.database.connection_string().unwrap().reveal().starts_with("postgres://edge@db/edge?password="));
    assert!(config.database.can_change() && config.database.is_asked_for());
    assert_eq!(config.traefik[0].authorization, Some(Secret::new("Bearer of-the-api")));
    assert_eq!(config.traefik[1].authorization, Some(Secret::new("Basic dTpw")));
    assert_eq!(config.webhooks.len(), 1);
    for (file, said) in [
        ("url_file = \"exec:vault\"", ":2: `exec:vault` does not name a command by its whole path; write exec:/"),
        ("url_file = \"exec:/bin/false a\"", ":2: the command /bin/false failed (exit status: 1): it said nothing"),
    ] {
        let error = refused(&format!("[database]\n{file}"), &[]);
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn a_login_is_read_again_from_where_it_came() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("database.url");
    fs::write(&file, "postgres://a@db/edge").unwrap();
    let named = format!("[database]\nurl_file = \"{}\"", file.display());
    let credentials = directory.path().display().to_string();
    for config in [
        read(&named, &[], Flags::default()).unwrap(),
        read("", &[("CREDENTIALS_DIRECTORY", &credentials)], Flags::default()).unwrap(),
    ] {
        fs::write(&file, "postgres://b@db/edge").unwrap();
        assert!(config.database.can_change() && !config.database.is_asked_for());
        assert_eq!(config.database.connection_string(), Some(Secret::new("postgres://a@db/edge")));
        assert_eq!(config.database.read_again().unwrap(), Some(Secret::new("postgres://b@db/edge")));
        fs::remove_file(&file).unwrap();
        assert!(config.database.read_again().is_err());
        fs::write(&file, "postgres://a@db/edge").unwrap();
    }
    let fixed = read("[database]\nurl = \"postgres://a@db/edge\"", &[], Flags::default()).unwrap();
    assert!(!fixed.database.can_change());
}

const OVH: &str = "provider = \"ovh\"\napplication_key = \"k\"\nsecret_file = \"/s\"\nconsumer_key_file = \"/c\"";
const RFC2136: &str = "provider = \"rfc2136\"\nserver = \"ns1.example.org\"\nkey_name = \"edge\"\nsecret_file = \"/s\"";

#[test]
fn zones_of_dns_are_read_and_ddns_is_off_by_itself() {
    let file = format!(
        "[ddns]\nsources = [\"uk=/run/uk\", \"fr = exec:/usr/bin/wan fr\"]\n[[ddns.zone]]\nzone = \"Example.org.\"\n{OVH}\n\
         [[ddns.zone]]\nzone = \"dyn.example.org\"\nttl = 300\n{RFC2136}"
    );
    let ddns = read(&file, &[], Flags::default()).unwrap().ddns;
    assert_eq!((ddns.mode, ddns.stable, ddns.interval), (Mode::Off, Duration::from_mins(1), Duration::from_mins(5)));
    assert_eq!(ddns.sources.keys().collect::<Vec<_>>(), ["fr", "uk"]);
    let [ovh, own] = &ddns.zones[..] else { panic!("{:?}", ddns.zones) };
    assert_eq!((ovh.zone.as_str(), ovh.ttl, &ovh.nameserver), ("example.org", 60, &None));
    let DnsProvider::Ovh { url, .. } = &ovh.provider else { panic!("{ovh:?}") };
    assert_eq!(url, "https://eu.api.ovh.com/1.0");
    assert_eq!((own.ttl, own.nameserver.as_deref()), (300, Some("ns1.example.org:53")), "it is asked who is told");
    let mode = [("CHARLIEHUB_DDNS_MODE", "dry-run")];
    assert_eq!(read(&file, &mode, Flags::default()).unwrap().ddns.mode, Mode::DryRun);
}

#[test]
fn what_is_wrong_with_ddns_is_named() {
    let zone = |lines: &str| format!("[[ddns.zone]]\nzone = \"a.org\"\n{lines}");
    let twice = format!("{}\n{}", zone(OVH), zone(RFC2136));
    for (file, error) in [
        ("[ddns]\nmode = \"on\"".to_owned(), ":2: \"on\" has the wrong type; write \"off\""),
        ("[ddns]\nmode = \"act\"".to_owned(), ":2: `ddns.mode` is set and no zone is; write [[ddns.zone]]"),
        ("[ddns]\ninterval = \"2d\"".to_owned(), ":2: changes are remembered for a day"),
        ("[ddns]\nsources = [\"uk\"]".to_owned(), ":2: `uk` is no source of an address; write it as SITE=/path"),
        ("[ddns]\nzone = 1".to_owned(), ":2: `ddns.zone` is a list; write [[ddns.zone]]"),
        (zone("provider = \"bind\""), ":3: `bind` is no provider of DNS that we know; did you mean"),
        (zone("secret = \"x\""), ":3: unknown key `secret` in [[ddns.zone]]; did you mean"),
        (zone("provider = \"ovh\""), ":1: [[ddns.zone]] without `application_key`; add it"),
        (zone(&format!("{OVH}\nserver = \"a\"")), ":7: `server` is of another provider; remove it"),
        (
            zone(&format!("{OVH}\nurl = \"http://ovh.test\"")),
            ":7: `http://ovh.test` is asked in the clear; write it with",
        ),
        (zone(&format!("{OVH}\nttl = 0")), ":7: 0 has the wrong type; write a whole number from 1"),
        (zone(&format!("{RFC2136}\nalgorithm = \"md5\"")), ":7: `md5` is no algorithm that we use; did you mean"),
        (zone(&format!("{RFC2136}\nnameserver = \"a:b:c\"")), ":7: `a:b:c` is no name server; write it as HOST"),
        (twice, ":7: two [[ddns.zone]] are `a.org`; keep one"),
    ] {
        let told = refused(&file, &[]);
        assert!(told.starts_with(error), "{file}: {told}");
    }
}
