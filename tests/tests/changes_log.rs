//! `changes.log` under a real logrotate, while changes go on.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "fails as its stories do")]

use std::{cell::Cell, collections::BTreeMap, io::Read as _, path::Path};

use charliehub_tests::{World, secs, until};
use flate2::read::GzDecoder;
use tokio::process::Command;

const CHANGES: u32 = 200;
const ROTATIONS: u32 = 8;

/// The lines of each revision, in all files that the log was rotated to.
fn lines_of_revisions(directory: &Path) -> BTreeMap<i64, u32> {
    let mut lines = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("changes.log") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let mut text = String::new();
        if path.extension().is_some_and(|extension| extension == "gz") {
            GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        } else {
            text = String::from_utf8(bytes).unwrap();
        }
        for line in text.lines() {
            let revision = line.split(' ').nth(1).and_then(|word| word.strip_prefix("revision=")).unwrap();
            *lines.entry(revision.parse().unwrap()).or_default() += 1;
        }
    }
    lines
}

#[tokio::test]
async fn no_line_is_lost_or_doubled_while_logrotate_takes_the_file_away() {
    let world = World::new().await;
    let directory = world.provider.data();
    let log = directory.join("changes.log");
    let config = include_str!("../../deploy/logrotate/charliehub-provider")
        .replace("/var/log/charliehub/changes.log", log.to_str().unwrap())
        .replace("rotate 52", "rotate 10000");
    let file = world.home.join("logrotate.conf");
    std::fs::write(&file, config).unwrap();
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let rotate = async || {
        let mut command = Command::new("logrotate");
        command.env("PATH", &path).arg("--force").arg("--state").arg(world.home.join("state")).arg(&file);
        let output = command.output().await.expect("deploy/install-tools.sh logrotate");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };

    world.psql("INSERT INTO domains (domain, backend_host, backend_port) VALUES ('a.test', 'h', 1)").await;
    let written = Cell::new(false);
    let writing = async {
        for port in 2..CHANGES {
            world.psql(&format!("UPDATE domains SET backend_port = {port}")).await;
        }
        written.set(true);
    };
    let rotating = async {
        let mut rotated = 0;
        while !written.get() {
            until("there is something to rotate", secs(10), async || {
                std::fs::metadata(&log).ok().filter(|file| file.len() > 0).ok_or("nothing")
            })
            .await;
            rotate().await;
            rotated += 1;
        }
        rotated
    };
    let ((), rotated) = tokio::join!(writing, rotating);
    let newest = i64::try_from(world.postgres.revision().await).unwrap();
    until("the newest revision has its line", secs(15), async || {
        let lines = lines_of_revisions(directory);
        if lines.contains_key(&newest) { Ok(()) } else { Err(format!("{:?} of {newest}", lines.last_key_value())) }
    })
    .await;
    let once: BTreeMap<i64, u32> = (1..=newest).map(|revision| (revision, 1)).collect();
    assert_eq!(lines_of_revisions(directory), once);
    assert!(rotated >= ROTATIONS, "only {rotated} rotations");
    println!("{newest} revisions, {rotated} rotations, each revision one line");
}
