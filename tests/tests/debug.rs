//! An operator looks at /debug: by a browser, without scripts, without a database, and with rows that mean harm.

use std::{path::PathBuf, time::Instant};

use charliehub_tests::{Answer, Browser, Connection, Home, Provider, Row, Stop, World, measured, ms, secs, until};
use hyper::Method;
use serde_json::Value;

const EVIL: &str = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'";

/// Where the screenshots of a run are.
fn shot(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("debug").join(format!("{name}.png"))
}

async fn ask(provider: &Provider, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let answer = provider.connection().await.send(method, path, headers, body).await;
    answer.unwrap_or_else(|e| panic!("{path}: {e:#}"))
}

async fn form(connection: &mut Connection, path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    let body: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let headers: Vec<(&str, &str)> = headers.iter().copied().chain([kind]).collect();
    let answer = connection.send(Method::POST, path, &headers, &body.join("&")).await;
    answer.unwrap_or_else(|e| panic!("{path}: {e:#}"))
}

/// Signs in; the cookie as it is sent back.
async fn session(provider: &Provider, token: &str) -> String {
    let answer = form(&mut provider.connection().await, "/debug/sign-in", &[], &[("token", token)]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/debug"), "{}", answer.text());
    let cookie = answer.header("set-cookie");
    assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains(token), "{cookie}");
    cookie.split(';').next().unwrap_or_default().to_owned()
}

/// Something of which most rows go at once: the guard withholds it. The number of its revision.
async fn withhold(world: &World) -> u64 {
    let hello = world.backend("hello").await;
    let rows: Vec<String> = (0..40).map(|n| Row::http(&format!("r{n:02}.test"), hello.address()).insert()).collect();
    world.psql(&rows.join(";")).await;
    world.provider.until_serves(world.postgres.revision().await, secs(5)).await;
    world.psql("DELETE FROM domains WHERE domain <> 'r00.test'").await;
    let newest = world.postgres.revision().await;
    until("the page shows what waits", secs(5), async || {
        let debug = world.provider.get("/debug.json").await.json();
        let waits = debug.get("withheld").and_then(Value::as_array).into_iter().flatten();
        let found = waits.filter_map(|one| one.get("revision")?.as_u64()).any(|revision| revision == newest);
        if found { Ok(()) } else { Err(debug.get("verdict").cloned()) }
    })
    .await;
    newest
}

#[tokio::test]
async fn it_is_for_readers_and_the_cookie_of_a_browser_only_lets_it_look_on() {
    let mut world = World::new().await;
    let provider = &world.provider;
    let (admin, reader, traefik) =
        (provider.admin_token(), provider.token("reader").await, provider.token("traefik").await);
    let bearer = |token: &str| format!("Bearer {token}");
    for (path, token, status) in [
        ("/debug", None, 401),
        ("/debug.json", None, 401),
        ("/debug", Some(&traefik), 403),
        ("/debug.json", Some(&traefik), 403),
        ("/debug", Some(&reader), 200),
        ("/debug.json", Some(&reader), 200),
        ("/debug", Some(&admin), 200),
        ("/debug/style.css", None, 200),
        ("/debug/secrets.css", None, 404),
    ] {
        let authorization = token.map(|token| bearer(token)).unwrap_or_default();
        let headers: Vec<_> = token.map(|_| ("authorization", &*authorization)).into_iter().collect();
        let answer = ask(provider, Method::GET, path, &headers, "").await;
        assert_eq!(answer.status, status, "{path} {}", answer.text());
        if path.starts_with("/debug") && !path.ends_with("json") {
            let policy = answer.header("content-security-policy");
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"),
                "{policy}"
            );
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
    }
    let style = ask(provider, Method::GET, "/debug/style.css", &[], "").await;
    let again = ask(provider, Method::GET, "/debug/style.css", &[("if-none-match", style.header("etag"))], "").await;
    assert_eq!((again.status, again.body.len()), (304, 0));

    let cookie = session(provider, &admin).await;
    let with = [("cookie", &*cookie)];
    assert_eq!(ask(provider, Method::GET, "/debug", &with, "").await.status, 200);
    assert_eq!(ask(provider, Method::GET, "/debug.json", &with, "").await.status, 200);
    for (method, path) in [
        (Method::GET, "/api/domains"),
        (Method::GET, "/traefik"),
        (Method::POST, "/api/domains"),
        (Method::GET, "/api/audit"),
    ] {
        assert_eq!(ask(provider, method, path, &with, "{}").await.status, 401, "{path}");
    }
    // The session is worth what its token is.
    let own = session(provider, &reader).await;
    world.psql("UPDATE tokens SET revoked_at = now() WHERE role = 'reader'").await;
    until("a session ends with its token", secs(5), async || {
        let answer = ask(&world.provider, Method::GET, "/debug", &[("cookie", &own)], "").await;
        if answer.status == 401 { Ok(()) } else { Err(answer.status) }
    })
    .await;
    let out = form(&mut world.provider.connection().await, "/debug/sign-out", &with, &[]).await;
    assert!(out.header("set-cookie").contains("Max-Age=0"), "{out:?}");
    assert_eq!(ask(&world.provider, Method::GET, "/debug", &with, "").await.status, 401);
    world.provider.stop().await;
}

#[tokio::test]
async fn wrong_tokens_are_slowed_down_and_noted_and_forms_of_other_sites_refused() {
    let world = World::new().await;
    let provider = &world.provider;
    let mut connection = provider.connection().await;
    let foreign = form(&mut connection, "/debug/sign-in", &[("origin", "https://evil.test")], &[("token", "x")]).await;
    assert_eq!(foreign.status, 403, "{}", foreign.text());
    // At once: one a second would be let through.
    let wrong = (0..20).map(async |_| {
        let fields = [("token", "wrong-one"), ("next", "https://evil.test/")];
        let answer = form(&mut provider.connection().await, "/debug/sign-in", &[], &fields).await;
        assert!(answer.text().contains("<form") && !answer.text().contains("wrong-one"), "{}", answer.text());
        assert_eq!(answer.header("set-cookie"), "");
        answer.status
    });
    let mut statuses = futures_util::future::join_all(wrong).await;
    statuses.sort_unstable();
    assert!(statuses.starts_with(&[401, 401]) && statuses.ends_with(&[429, 429]), "{statuses:?}");
    let injected = format!("/debug?q={}", "a%0d%0aset-cookie:%20x=y");
    let answer = provider.get(&injected).await;
    assert_eq!((answer.status, answer.header("set-cookie")), (200, ""));
    let cookie = session(provider, &provider.admin_token()).await;
    assert!(cookie.starts_with("charliehub-session="), "a valid token is not slowed down");
    until("the audit has them", secs(75), async || {
        let noted = world
            .postgres
            .value("SELECT coalesce(sum((detail ->> 'count')::int), 0) FROM audit_events WHERE kind = 'refused'")
            .await;
        if noted.parse::<u32>().unwrap() >= 15 { Ok(()) } else { Err(noted) }
    })
    .await;
}

#[tokio::test]
async fn rows_that_mean_harm_are_text_and_secrets_are_not_shown() {
    let world = World::new().await;
    let hello = world.backend("hello").await;
    let quoted = EVIL.replace('\'', "''");
    world.insert(&Row::http("evil.test", hello.address()).with("notes", EVIL)).await;
    let resting =
        Row::http("rest.test", hello.address()).with("status", "maintenance").with("maintenance_message", EVIL);
    world.insert(&resting).await;
    world
        .psql(&format!(
            "INSERT INTO fragments (kind, name, body, notes) VALUES ('http.middleware', 'login',
             '{{\"basicAuth\": {{\"users\": [\"anna:$2y$05$hashhashhash\"]}}}}', '{quoted}')"
        ))
        .await;
    // Closed, for a middleware that has a name like this.
    let odd = format!(
        "ALTER TABLE domains DROP CONSTRAINT domains_middlewares_valid; UPDATE domains SET middlewares = ARRAY['{quoted}'] WHERE domain = 'evil.test'"
    );
    world.psql(&odd).await;
    world.provider.until_serves(world.postgres.revision().await, secs(5)).await;
    let page = world.provider.get("/debug").await.text();
    for shown in ["evil.test", "rest.test", "login", "closed"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(
        !page.contains("<script>") && !page.contains("<img") && page.matches("&lt;script&gt;").count() >= 3,
        "{page}"
    );
    let data = world.provider.get("/debug.json").await.text();
    for secret in ["hashhashhash", &world.provider.admin_token(), "PRIVATE KEY"] {
        assert!(!page.contains(secret) && !data.contains(secret), "{secret}");
    }
    let browser = Browser::start(&world.home).await;
    sign_in(&browser, &world).await;
    browser.until_text("#lines", "evil.test").await;
    assert_eq!(browser.run("return [document.title, document.images.length]").await[1], 0);
    assert_ne!(browser.run("return document.title").await, "owned");
    browser.screenshot(&shot("harm")).await;
}

#[tokio::test]
async fn without_a_database_it_says_so_and_shows_what_is_known() {
    let mut world = World::new().await;
    let hello = world.backend("hello").await;
    let (nothing, _) = until("the database was read", secs(5), async || {
        let debug = world.provider.get("/debug.json").await.json();
        if debug["revision"].is_null() && debug["verdict"]["state"] == "broken" { Err(debug) } else { Ok(debug) }
    })
    .await;
    assert_eq!(nothing["verdict"]["state"], "attention", "{nothing}");
    assert!(nothing["causes"][0]["command"].as_str().unwrap().starts_with("charliehub-provider "), "what to do first");
    world.serve(&Row::http("a.test", hello.address())).await;
    let before = world.provider.get("/debug.json").await.json();
    world.postgres.stop(Stop::Fast).await;
    world.provider.until_metric("database_connected", ms(3_500), |v| v == 0.0).await;
    let page = world.provider.get("/debug").await;
    assert!(page.status == 200 && page.text().contains("what is served goes on, changes wait"), "{}", page.text());
    assert!(page.took < secs(2), "{:?}", page.took);
    let after = world.provider.get("/debug.json").await.json();
    let database =
        |debug: &Value| debug["causes"].as_array().unwrap().iter().any(|cause| cause["subject"] == "database");
    assert!(!database(&before) && database(&after), "{after}");
    assert_eq!(after["revision"]["commit"], before["revision"]["commit"], "remembered");
    world.postgres.up().await;
    until("it is as before", secs(10), async || {
        let debug = world.provider.get("/debug.json").await.json();
        if database(&debug) { Err(debug["causes"].clone()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_decision_takes_an_administrator_and_a_form_of_the_page() {
    let world = World::new().await;
    let revision = withhold(&world).await.to_string();
    let provider = &world.provider;
    let (admin, reader) = (provider.admin_token(), provider.token("reader").await);
    let (mine, theirs) = (session(provider, &admin).await, session(provider, &reader).await);
    let page = ask(provider, Method::GET, "/debug", &[("cookie", &mine)], "").await.text();
    let proof =
        page.split("name=\"proof\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let fields = |more: &[(&'static str, &str)]| {
        let mut fields: Vec<(&'static str, String)> =
            more.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        fields.extend([("revision", revision.clone()), ("decision", "approve".to_owned())]);
        fields
    };
    for (why, cookie, origin, more, status) in [
        ("no proof", &mine, None, &[][..], 403),
        ("a made up proof", &mine, None, &[("proof", "x")], 403),
        ("somebody else's proof", &theirs, None, &[("proof", &*proof)], 403),
        ("another site", &mine, Some("https://evil.test"), &[("proof", &*proof)], 403),
        ("a reader's token", &theirs, None, &[("token", &*reader)], 403),
        ("a wrong token", &theirs, None, &[("token", "wrong")], 401),
        ("nobody", &String::new(), None, &[("proof", &*proof)], 401),
        ("an admin's token typed in by a reader", &theirs, None, &[("token", &*admin), ("reason", "meant it")], 303),
    ] {
        let mut headers = vec![("cookie", &**cookie)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let fields = fields(more);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
        let answer = form(&mut provider.connection().await, "/debug/decide", &headers, &fields).await;
        assert_eq!(answer.status, status, "{why}: {}", answer.text());
        let state = world.postgres.value(&format!("SELECT state FROM snapshots WHERE revision = {revision}")).await;
        assert_eq!(state, if status == 303 { "approved" } else { "withheld" }, "{why}");
    }
    let noted =
        world.postgres.value("SELECT actor || ' ' || source FROM audit_events WHERE kind LIKE '%approve%'").await;
    assert_eq!(noted, "first admin debug");
    let missing = form(
        &mut provider.connection().await,
        "/debug/decide",
        &[("cookie", &mine)],
        &[("proof", &proof), ("revision", "999"), ("decision", "discard")],
    )
    .await;
    assert!(missing.status == 404 && missing.text().contains("role=\"alert\""), "{}", missing.text());
}

async fn sign_in(browser: &Browser, world: &World) {
    browser.open(&format!("http://{}/debug", world.provider.address())).await;
    browser.fill("#token", &world.provider.admin_token()).await;
    browser.click("main button").await;
    browser.until_text("#verdict", "The edge").await;
}

/// Every text against what is behind it, as WCAG counts: the pairs that are hard to read.
const CONTRAST: &str = r"
const light = (rgb) => rgb.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const parse = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
        const colour = parse(getComputedStyle(at).backgroundColor);
        if (colour.length === 3 || colour[3] > 0) return colour.slice(0, 3);
    }
    return [255, 255, 255];
};
const bad = [];
for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.getClientRects().length || node.closest('.unseen, svg')) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color).slice(0, 3)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${node.tagName}.${node.className} ${node.textContent.slice(0, 40)}`);
}
return bad;";

#[tokio::test]
async fn a_person_clicks_through_the_page() {
    let (world, traefik, _hello) = World::acking(|provider| provider).await;
    let browser = Browser::start(&world.home).await;
    sign_in(&browser, &world).await;
    browser.until_text("#stream.on", "live").await;
    browser.until_text("#verdict", "hub2 runs revision").await;
    browser.until_text("#changes tbody", "ms hub2").await;
    browser.screenshot(&shot("right")).await;
    let debug = world.provider.get("/debug.json").await.json();
    assert_eq!(
        (&debug["drift"][0]["instance"], debug["drift"][0]["differences"].to_string()),
        (&"hub2".into(), "[]".to_owned())
    );
    let revision = withhold(&world).await;
    traefik.until_answers("http://r05.test/", "hello").await;
    browser.until_text("#withheld", &format!("Revision {revision} waits")).await;

    // What is seen at once, on each screen.
    for (scheme, width, name) in
        [("light", 1280, "light"), ("dark", 1280, "dark"), ("light", 390, "phone-light"), ("dark", 390, "phone")]
    {
        browser.look(scheme, width).await;
        browser.screenshot(&shot(name)).await;
        assert_eq!(browser.run(CONTRAST).await, Value::Array(Vec::new()), "{name}");
        let overflows = browser.run("return document.documentElement.scrollWidth > innerWidth").await;
        assert_eq!(overflows, false, "{name} scrolls sideways");
    }
    browser.look("light", 1280).await;

    // Filter, and the next page.
    browser.fill("#q", "r1").await;
    browser.click("#routes form button").await;
    browser.until_text("#lines", "No route").await;
    browser.open(&format!("http://{}/debug", world.provider.address())).await;
    browser.fill("#q", "R00").await;
    browser.click("#routes form button").await;
    browser.until_text("#lines", "r00.test").await;

    // The tester says what Traefik does.
    for (url, says) in [("http://r05.test/x", "routed"), ("nobody.test", "No route takes")] {
        browser.fill("#url", url).await;
        browser.click("#tester form button").await;
        browser.until_text("#tested", says).await;
    }
    assert_eq!(traefik.get("http://r05.test/x").await.text(), "hello");
    assert_eq!(traefik.get("https://nobody.test/").await.status, 404);

    // A change shows without a reload, and what somebody types is left alone.
    browser.open(&format!("http://{}/debug", world.provider.address())).await;
    browser.fill(&format!("#reason-{revision}"), "half a sen").await;
    let hello = world.backend("hello2").await;
    world.insert(&Row::http("fresh.test", hello.address())).await;
    browser.until_text("#lines", "fresh.test").await;
    let typed = browser.run(&format!("return document.getElementById('reason-{revision}').value")).await;
    assert_eq!(typed, "half a sen");

    // Approve; it goes live.
    browser.open(&format!("http://{}/debug", world.provider.address())).await;
    browser.click("#withheld button[value=approve]").await;
    browser.until_text("main", "was approved, and goes live").await;
    browser.until_text("#withheld", "Nothing waits").await;
    traefik.until_status("http://r05.test/", 404).await;

    // The same without scripts.
    browser.scripts(false).await;
    browser.open(&format!("http://{}/debug?state=live&q=fresh#routes", world.provider.address())).await;
    browser.scripts(true).await;
    browser.until_text("#lines", "fresh.test").await;
    browser.click("header form button").await;
    browser.until_text("h1", "Sign in").await;
    browser.screenshot(&shot("sign-in")).await;

    let complaints = browser.complaints().await;
    // A status that is not 200 is a line there too: the sign-in, and a stream that ended with the session.
    let real: Vec<_> =
        complaints.iter().filter(|line| !line.contains("Failed to load resource") && !line.contains("[DOM]")).collect();
    assert!(real.is_empty(), "{real:?}");
}

#[tokio::test]
async fn a_fragment_that_traefik_refuses_shows_within_three_seconds_in_its_words_and_nothing_else_stops() {
    let (world, traefik, hello) = World::acking(|provider| provider).await;
    let row = |name: &str| Row::http(name, hello.address()).with("middlewares", "{guarded}");
    world
        .psql("INSERT INTO fragments (kind, name, body) VALUES ('http.middleware', 'guarded', '{\"compress\": {}}')")
        .await;
    world.insert(&row("guarded.test")).await;
    traefik.until_answers("http://guarded.test/", "hello").await;
    let browser = Browser::start(&world.home).await;
    sign_in(&browser, &world).await;
    browser.until_text("#stream.on", "live").await;
    browser.until_text("#verdict", "The edge is right").await;
    // Nothing but Traefik itself knows which plugins it has.
    world.psql("UPDATE fragments SET body = '{\"plugin\": {\"nowhere\": {}}}' WHERE name = 'guarded'").await;
    let broken = Instant::now();
    let (debug, took) = until("it is a cause, with the row named", secs(5), async || {
        let debug = world.provider.get("/debug.json").await.json();
        let causes = debug["causes"].to_string();
        if causes.contains("guarded") && causes.contains("nowhere") { Ok(debug) } else { Err(causes) }
    })
    .await;
    measured("broken to shown", took);
    assert!(took < secs(3), "{took:?}");
    browser.until_text("#causes", "nowhere").await;
    let seen = broken.elapsed();
    measured("broken to seen in a browser", seen);
    assert!(seen < secs(3), "{seen:?}");
    browser.screenshot(&shot("broken")).await;
    assert_eq!(debug["causes"].as_array().unwrap().len(), 1, "one cause: {}", debug["causes"]);
    assert_eq!(traefik.get("http://first.test/").await.text(), "hello");
}

#[tokio::test]
async fn an_empty_provider_says_what_to_do_first() {
    let home = Home::new();
    let provider = Provider::new(&home, "alone").start().await;
    until("the database of its own is read", secs(30), async || {
        let debug = provider.get("/debug.json").await.json();
        if debug["causes"][0]["subject"] == "no routes yet" { Ok(()) } else { Err(debug["causes"].clone()) }
    })
    .await;
    let page = provider.get("/debug").await.text();
    assert!(page.contains("charliehub-provider domains add"), "{page}");
}
