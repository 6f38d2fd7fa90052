use super::*;

fn known(findings: usize, status: Status, heard: Instant) -> Known {
    let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let finding = |n| Finding {
        check: "c".to_owned(),
        target: format!("\"t{n}\\\n"),
        site: None,
        status: if n == 0 { status } else { Status::Ok },
        text: "it is so".to_owned(),
        observed: None,
        expected: None,
        source: None,
        remedy: None,
        action: None,
        since: at,
        seen: at,
    };
    Known {
        version: "1".to_owned(),
        first_seen: at,
        last_report: at,
        reported_at: at,
        expected: None,
        lost: 0,
        heard,
        findings: Arc::new((0..findings).map(finding).collect()),
        endpoints: Vec::new(),
    }
}

#[test]
fn an_agent_is_silent_when_it_could_have_reported_for_so_long_and_did_not() {
    let agents = Agents::new(Duration::from_mins(2));
    let begin = Instant::now();
    agents.hears_again(begin);
    agents.known.lock().unwrap().insert("hub2".to_owned(), known(1, Status::Warning, begin));
    let at = |seconds| begin + Duration::from_secs(seconds);
    let status = |seconds| agents.statuses(BTreeSet::from(["hub3".to_owned()]), at(seconds));
    assert_eq!((status(120)[0].silent, status(120)[0].status), (false, Status::Warning));
    assert_eq!((status(121)[0].silent, status(121)[0].status), (true, Status::Critical));
    let text = &status(300)[0].findings[0].text;
    assert_eq!(text, "agent hub2 has not reported for 5 min; its findings are that old");
    assert_eq!(agents.troubles(at(121)).len(), 2);
    agents.hears_again(at(290));
    assert!(!status(300)[0].silent, "the database was away until a moment ago");
    let never = &status(300)[1];
    assert_eq!((never.name.as_str(), never.last_report, never.silent), ("hub3", None, false));
}

#[test]
fn of_many_findings_only_those_that_are_not_ok_are_series() {
    let agents = Agents::new(Duration::from_mins(2));
    let now = Instant::now();
    assert_eq!(agents.metrics(now), "");
    agents.known.lock().unwrap().insert("hub2".to_owned(), known(2, Status::Critical, now));
    let text = agents.metrics(now);
    let series = "charliehub_provider_agent_finding{agent=\"hub2\",check=\"c\",target=\"\\\"t0\\\\\\n\"} 2\n";
    assert!(
        text.contains(series) && text.contains("charliehub_provider_agent_report_age_seconds{agent=\"hub2\"} 0"),
        "{text}"
    );
    assert!(text.contains("check=\"agent-silent\",target=\"hub2\"} 0"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("check=\"c\"")).count(), 2);
    agents.known.lock().unwrap().insert("hub3".to_owned(), known(1500, Status::Unknown, now));
    let text = agents.metrics(now + Duration::from_mins(3));
    assert_eq!(
        text.lines().filter(|line| line.contains("check=\"c\"")).count(),
        2,
        "of each agent the one that is not ok"
    );
    assert_eq!(text.lines().filter(|line| line.contains("agent-silent") && line.ends_with(" 2")).count(), 2);
}

#[test]
fn what_the_provider_finds_is_told_with_no_agent_at_all() {
    let agents = Agents::new(Duration::from_mins(2));
    let now = Instant::now();
    assert_eq!(agents.metrics(now), "");
    let own = debug::Finding {
        agent: "provider".to_owned(),
        check: "ddns".to_owned(),
        target: "uk.test A".to_owned(),
        site: None,
        status: Status::Critical,
        text: "it does not follow".to_owned(),
        since: None,
        remedy: None,
        action: None,
    };
    agents.found(vec![own.clone()]);
    assert_eq!(agents.troubles(now), [own]);
    let line = "charliehub_provider_agent_finding{agent=\"provider\",check=\"ddns\",target=\"uk.test A\"} 2\n";
    assert!(agents.metrics(now).ends_with(line), "{}", agents.metrics(now));
    agents.found(Vec::new());
    assert!(agents.troubles(now).is_empty());
}
