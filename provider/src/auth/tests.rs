use futures_util::future::join_all;

use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn auth(directory: &Path, tokens: &[(&str, Role, Option<Timestamp>)]) -> Auth {
    let tokens: Vec<Token> = tokens
        .iter()
        .map(|(text, role, expires_at)| Token {
            hash: Hash::of(text),
            caller: Caller {
                id: Uuid::new_v4(),
                name: text.to_string(),
                role: *role,
                subject: None,
                scope: Scope::default(),
                certified: false,
            },
            expires_at: *expires_at,
            used: false.into(),
        })
        .collect();
    file::write(&directory.join("tokens"), tokens.iter()).unwrap();
    Auth::open(directory)
}

fn sends(header: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::header::AUTHORIZATION, header.parse().unwrap())])
}

#[tokio::test]
async fn each_role_may_do_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let roles = [Role::Traefik, Role::Agent, Role::Reader, Role::Editor, Role::Admin];
    let auth = auth(directory.path(), &roles.map(|role| (role.as_str(), role, None)));
    for (need, may) in [
        (Need::Traefik, ["traefik", "admin"].as_slice()),
        (Need::Read, &["reader", "editor", "admin"]),
        (Need::Write, &["editor", "admin"]),
        (Need::Admin, &["admin"]),
    ] {
        for role in roles {
            let result = auth.check(&sends(&format!("bearer {role}")), need, HERE, None).await;
            assert_eq!(result.is_ok(), may.contains(&role.as_str()), "{need:?} by {role}: {result:?}");
        }
    }
    let refusal = auth.check(&sends("Bearer reader"), Need::Write, HERE, None).await.unwrap_err();
    assert_eq!(refusal.to_string(), "role `reader` may not do this; it needs `editor` or `admin`");
}

#[tokio::test]
async fn what_is_no_living_token_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let past = Timestamp::from_second(1).unwrap();
    let auth = auth(directory.path(), &[("good", Role::Admin, None), ("old", Role::Admin, Some(past))]);
    assert_eq!(auth.check(&HeaderMap::new(), Need::Read, HERE, None).await, Err(Refusal::Missing));
    for header in ["good", "Basic good", "Bearer ", "Bearer"] {
        assert_eq!(auth.check(&sends(header), Need::Read, HERE, None).await, Err(Refusal::Missing), "{header}");
    }
    let unknown = ["Bearer old", "Bearer goo", "Bearer good2"].map(sends);
    for refusal in join_all(unknown.iter().map(|headers| auth.check(headers, Need::Read, HERE, None))).await {
        assert_eq!(refusal, Err(Refusal::Unknown));
    }
}

#[tokio::test]
async fn wrong_tokens_slow_an_address_down_but_not_its_valid_ones() {
    let directory = tempfile::tempdir().unwrap();
    let auth = auth(directory.path(), &[("good", Role::Traefik, None)]);
    let wrong = sends("Bearer wrong");
    let refusals = join_all((0..20).map(|_| auth.check(&wrong, Need::Read, HERE, None))).await;
    let slow = refusals.iter().filter(|refusal| matches!(refusal, Err(Refusal::Slow { .. }))).count();
    assert!(slow >= 8 && refusals.contains(&Err(Refusal::Unknown)), "{refusals:?}");
    assert!(auth.check(&sends("Bearer good"), Need::Traefik, HERE, None).await.is_ok());
}

#[test]
fn kept_tokens_are_hashes_for_our_eyes_only_and_a_broken_file_is_none() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    assert!(Auth::open(directory.path()).is_empty());
    let mut tokens = auth(directory.path(), &[("ch_secret", Role::Admin, None)]);
    assert_eq!(tokens.len(), 1);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&serde_json::to_string(&Hash::of("ch_secret")).unwrap()), "{text}");
    std::fs::write(&path, "[{").unwrap();
    tokens = Auth::open(directory.path());
    assert!(tokens.is_empty());
}
