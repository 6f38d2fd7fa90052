use jiff::Timestamp;
use proptest::{collection::vec, prelude::*};

use super::*;

fn report() -> Report {
    Report {
        install: Uuid::nil(),
        seq: 0,
        at: Timestamp::UNIX_EPOCH,
        boot: Uuid::nil(),
        version: "0".to_owned(),
        expected: None,
        complete: true,
        findings: Vec::new(),
        endpoints: Vec::new(),
        lost: 0,
    }
}

fn seq(json: &[u8]) -> u64 {
    serde_json::from_slice::<Report>(json).unwrap().seq
}

fn drain(spool: &mut Spool) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(json) = spool.front() {
        all.push(seq(&json));
        spool.pop();
    }
    all
}

#[test]
fn what_was_pushed_comes_out_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), Bounds { segment: 1_000, ..Bounds::default() }).unwrap();
    for _ in 0..20 {
        spool.push(report(), true);
    }
    assert_eq!(seq(&spool.front().unwrap()), 1);
    spool.pop();
    let first = spool.install;
    drop(spool);
    let mut spool = Spool::open(dir.path(), Bounds::default()).unwrap();
    spool.push(report(), true);
    assert_ne!(spool.install, first, "numbers begin anew under another name");
    let all = drain(&mut spool);
    assert_eq!(*all.last().unwrap(), 1, "the new one is the last");
    assert!(all[..all.len() - 1].is_sorted() && all[all.len() - 2] == 20);
    assert_eq!(fs::read_dir(dir.path().join("spool")).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_torn_end_is_cut_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), Bounds::default()).unwrap();
    spool.push(report(), true);
    spool.push(report(), true);
    let path = spool.path(1);
    drop(spool);
    let length = fs::metadata(&path).unwrap().len();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 5).unwrap();
    let mut spool = Spool::open(dir.path(), Bounds::default()).unwrap();
    assert_eq!((spool.len(), spool.lost()), (1, 1));
    spool.push(report(), false);
    spool.pop();
    let next: Report = serde_json::from_slice(&spool.front().unwrap()).unwrap();
    assert_eq!(next.lost, 1);
}

#[test]
fn too_many_lose_the_oldest_that_tell_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { entries: 20, segment: 1_500, ..Bounds::default() };
    let mut spool = Spool::open(dir.path(), bounds).unwrap();
    for n in 0..100 {
        spool.push(report(), n % 10 == 0);
    }
    assert!(spool.len() <= 20);
    let lost_in_reports = |spool: &mut Spool| {
        let mut lost = spool.lost();
        let mut all = Vec::new();
        while let Some(json) = spool.front() {
            let report: Report = serde_json::from_slice(&json).unwrap();
            lost += report.lost;
            all.push(report.seq);
            spool.pop();
        }
        (lost, all)
    };
    let mut again = Spool::open(dir.path(), bounds).unwrap();
    let (_, all) = lost_in_reports(&mut again);
    assert!(all.is_sorted() && all.len() == spool.len(), "a restart finds what is wanted, no more");
    for news in (0..100).filter(|n| n % 10 == 0) {
        assert!(all.contains(&(news + 1)), "news stay: {all:?}");
    }
    assert_eq!(*all.last().unwrap(), 100);
}

#[test]
fn what_is_on_its_way_is_not_dropped_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { entries: 10, memory: 3, ..Bounds::default() };
    for is_news in [false, true] {
        for disk in [true, false] {
            let mut spool = if disk {
                Spool::open(dir.path(), bounds).unwrap()
            } else {
                fs::write(dir.path().join("in the way"), b"").unwrap();
                Spool::without_disk(&dir.path().join("in the way"), bounds)
            };
            spool.push(report(), is_news);
            let on_its_way = seq(&spool.front().unwrap());
            for _ in 0..30 {
                spool.push(report(), is_news);
            }
            assert_eq!(seq(&spool.front().unwrap()), on_its_way, "news {is_news}, disk {disk}");
            spool.pop();
            let left = drain(&mut spool);
            assert!(left.is_sorted() && left.first() > Some(&on_its_way) && left.last() == Some(&31), "{left:?}");
        }
    }
}

#[test]
fn a_disk_that_takes_nothing_leaves_the_newest_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), Bounds { memory: 3, ..Bounds::default() }).unwrap();
    fs::remove_dir(dir.path().join("spool")).unwrap();
    fs::write(dir.path().join("spool"), b"in the way").unwrap();
    for _ in 0..5 {
        spool.push(report(), false);
    }
    assert_eq!((spool.len(), spool.lost() > 0), (3, true));
    fs::remove_file(dir.path().join("spool")).unwrap();
    spool.push(report(), true);
    assert_eq!(drain(&mut spool), [1, 4, 5, 6], "the oldest may be on its way");
}

#[test]
fn a_report_that_is_refused_for_ever_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), Bounds::default()).unwrap();
    spool.push(report(), true);
    spool.push(report(), true);
    spool.reject();
    assert_eq!(drain(&mut spool), [2]);
    assert_eq!(fs::read_dir(dir.path().join("rejected")).unwrap().count(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Push(bool),
    Deliver,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![any::<bool>().prop_map(Step::Push), Just(Step::Deliver), Just(Step::Restart)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Within its bounds a spool is a queue, whatever restarts come in between.
    #[test]
    fn within_its_bounds_it_is_a_queue(steps in vec(step(), 0..60)) {
        let dir = tempfile::tempdir().unwrap();
        let bounds = Bounds { segment: 700, ..Bounds::default() };
        let mut spool = Spool::open(dir.path(), bounds).unwrap();
        let mut model: VecDeque<(Uuid, u64)> = VecDeque::new();
        for step in steps {
            match step {
                Step::Push(is_news) => {
                    spool.push(report(), is_news);
                    model.push_back((spool.install, spool.seq));
                }
                Step::Deliver => {
                    let front = spool.front().map(|json| serde_json::from_slice::<Report>(&json).unwrap());
                    prop_assert_eq!(front.map(|report| (report.install, report.seq)), model.pop_front());
                    if spool.front().is_some() {
                        spool.pop();
                    }
                }
                Step::Restart => {
                    spool = Spool::open(dir.path(), bounds).unwrap();
                    // Of the file that was being delivered, what was delivered comes again: the provider knows it.
                    while spool.len() > model.len() {
                        spool.pop();
                    }
                }
            }
            prop_assert_eq!(spool.len(), model.len());
            prop_assert_eq!(spool.lost(), 0);
        }
    }

    /// Whatever is in the files, opening ends, and does not fail.
    #[test]
    fn any_bytes_are_a_spool(bytes in vec(any::<u8>(), 0..500)) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("spool")).unwrap();
        fs::write(dir.path().join("spool/00000000000000000007.jsonl"), bytes).unwrap();
        let mut spool = Spool::open(dir.path(), Bounds::default()).unwrap();
        prop_assert_eq!(spool.front(), None);
    }
}
