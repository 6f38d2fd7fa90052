//! Will the rules be restored at boot: is the unit enabled, and does what it runs run.
//!
//! The link in `multi-user.target.wants` decides, which is there without a running systemd too; where it is absent, `systemctl` is
//! asked, which knows other ways to be enabled. What can spoil a restore was read in Debian's netfilter-persistent and
//! iptables-persistent 1.0.20: plugins run when they are executable, and /etc/default changes how.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use super::run;
use crate::{config, sample::Sample};

pub(super) const CHECK: &str = "firewall-boot";

/// The package of Debian that brings the unit of that name.
const PACKAGE: &str = "netfilter-persistent";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) link: Link,
    /// The answer of `systemctl is-enabled`, where it was asked.
    pub(crate) systemctl: Option<String>,
    /// The unit's own file is a link to `/dev/null`.
    pub(crate) is_masked: bool,
    /// Plugins that are not executable, or are not there.
    pub(crate) lame: Vec<String>,
    /// Lines of the defaults file that weaken the restore.
    pub(crate) defaults: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Link {
    #[default]
    Absent,
    There,
    /// To a file that is not there.
    Dangling(String),
    Unreadable(String),
}

pub(crate) async fn read(settings: &config::Firewall, unit: &str) -> Facts {
    let (at, name) = (settings.clone(), unit.to_owned());
    let files = tokio::task::spawn_blocking(move || files(&at, &name)).await;
    let mut facts = files.unwrap_or_else(|e| Facts { link: Link::Unreadable(e.to_string()), ..Facts::default() });
    let is_this_host = settings.wants_dir == config::Firewall::default().wants_dir;
    if facts.link == Link::Absent
        && is_this_host
        && let Some(systemctl) = run::find("systemctl")
    {
        let said = run::run(&systemctl, &["is-enabled", "--", unit], b"").await;
        facts.systemctl = said.ok().map(|said| said.output.trim().to_owned()).filter(|answer| !answer.is_empty());
    }
    facts
}

fn files(settings: &config::Firewall, unit: &str) -> Facts {
    let mut facts = Facts { link: link(&settings.wants_dir.join(unit)), ..Facts::default() };
    let own = settings.wants_dir.parent().map(|dir| dir.join(unit));
    facts.is_masked = own.is_some_and(|own| fs::read_link(own).is_ok_and(|to| to == Path::new("/dev/null")));
    if unit.strip_suffix(".service") != Some(PACKAGE) {
        return facts;
    }
    for plugin in ["15-ip4tables", "25-ip6tables"] {
        let file = settings.plugins_dir.join(plugin);
        if !fs::metadata(&file).is_ok_and(|file| file.permissions().mode() & 0o111 != 0) {
            facts.lame.push(file.to_string_lossy().into_owned());
        }
    }
    let defaults = fs::read_to_string(&settings.defaults_file).unwrap_or_default();
    facts.defaults.extend(weakening(&defaults));
    facts
}

fn link(at: &Path) -> Link {
    match fs::symlink_metadata(at) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Link::Absent,
        Err(e) => Link::Unreadable(e.to_string()),
        Ok(_) if at.exists() => Link::There,
        Ok(_) => Link::Dangling(fs::read_link(at).unwrap_or_default().to_string_lossy().into_owned()),
    }
}

/// Lines that say yes to what weakens.
fn weakening(defaults: &str) -> Vec<String> {
    let set = defaults.lines().map(str::trim).filter(|line| {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let weakens = key.ends_with("TABLES_SKIP_SAVE") || key.ends_with("TABLES_RESTORE_NOFLUSH");
        weakens && !key.starts_with('#') && value.trim_matches(['"', '\'', ' ']) == "yes"
    });
    set.take(8).map(str::to_owned).collect()
}

pub(crate) fn judge(facts: &Facts, settings: &config::Firewall, unit: &str) -> Sample {
    let at = settings.wants_dir.join(unit);
    let enable = if *settings.wants_dir == *config::Firewall::default().wants_dir {
        format!("systemctl enable {unit}")
    } else {
        format!("ln -s /lib/systemd/system/{unit} {}", at.display())
    };
    let says = facts.systemctl.as_deref();
    let is_enabled = says.is_some_and(|says| matches!(says, "enabled" | "static" | "alias" | "generated" | "indirect"));
    let critical = |text: &str, remedy: String| Sample::critical(CHECK, unit, text).remedy(remedy);
    let sample = match &facts.link {
        _ if facts.is_masked || says == Some("masked") => critical(
            "the unit that restores the rules at boot is masked",
            format!("systemctl unmask {unit} && {enable}"),
        ),
        Link::Absent if !is_enabled => critical("the unit that restores the rules at boot is not enabled", enable)
            .observed(says.unwrap_or("no link")),
        Link::Dangling(to) => critical(
            "the unit that restores the rules at boot is not installed",
            "apt-get install iptables-persistent".to_owned(),
        )
        .observed(format!("a link to {to}, which is not there")),
        Link::Unreadable(why) => Sample::unknown(CHECK, unit, "whether the unit is enabled cannot be read")
            .observed(why)
            .remedy(format!("let the agent read {}", settings.wants_dir.display())),
        Link::Absent | Link::There if !facts.lame.is_empty() => {
            Sample::warning(CHECK, unit, "enabled, but a plugin that restores rules is not executable or not there")
                .observed(facts.lame.join(", "))
                .remedy(format!("chmod 755 {}", facts.lame.join(" ")))
        }
        Link::Absent | Link::There if !facts.defaults.is_empty() => {
            let file = settings.defaults_file.display();
            let weak = facts.defaults.join(", ");
            Sample::warning(CHECK, unit, "enabled, but what it keeps or restores is weakened by its defaults")
                .observed(&weak)
                .source(file.to_string())
                .remedy(format!("sed -i -E 's/^(IP6?TABLES_(SKIP_SAVE|RESTORE_NOFLUSH)=)/# \\1/' {file}"))
        }
        Link::Absent | Link::There => Sample::ok(CHECK, unit, "the rules are restored at boot"),
    };
    if sample.source.is_some() { sample } else { sample.source(at.display().to_string()) }
}

#[cfg(test)]
mod tests {
    use charliehub_proto::finding::Status;

    use super::*;

    const UNIT: &str = "netfilter-persistent.service";

    #[test]
    fn how_each_state_is_judged() {
        let settings = config::Firewall::default();
        let there = Facts { link: Link::There, ..Facts::default() };
        for (facts, status, remedy) in [
            (there.clone(), Status::Ok, None),
            (Facts::default(), Status::Critical, Some("systemctl enable netfilter-persistent.service")),
            (Facts { systemctl: Some("enabled".to_owned()), ..Facts::default() }, Status::Ok, None),
            (
                Facts { systemctl: Some("disabled".to_owned()), ..Facts::default() },
                Status::Critical,
                Some("systemctl enable netfilter-persistent.service"),
            ),
            (
                Facts { is_masked: true, ..there.clone() },
                Status::Critical,
                Some("systemctl unmask netfilter-persistent.service && systemctl enable netfilter-persistent.service"),
            ),
            (
                Facts { link: Link::Dangling("/lib/x".to_owned()), ..Facts::default() },
                Status::Critical,
                Some("apt-get install iptables-persistent"),
            ),
            (
                Facts { link: Link::Unreadable("no".to_owned()), ..Facts::default() },
                Status::Unknown,
                Some("let the agent read /etc/systemd/system/multi-user.target.wants"),
            ),
            (Facts { lame: vec!["/p/15".to_owned()], ..there.clone() }, Status::Warning, Some("chmod 755 /p/15")),
        ] {
            let sample = judge(&facts, &settings, UNIT);
            assert_eq!((sample.status, sample.remedy.as_deref()), (status, remedy), "{facts:?}");
        }
    }

    #[test]
    fn what_weakens_the_restore() {
        let defaults =
            "# IPTABLES_SKIP_SAVE=yes\nIPTABLES_RESTORE_NOFLUSH=\"yes\"\nIP6TABLES_SKIP_SAVE=no\nFLUSH_ON_STOP=0\n";
        assert_eq!(weakening(defaults), ["IPTABLES_RESTORE_NOFLUSH=\"yes\""]);
    }

    #[test]
    fn the_files_of_a_host() {
        let dir = tempfile::tempdir().unwrap();
        let settings = config::Firewall {
            wants_dir: dir.path().join("wants"),
            plugins_dir: dir.path().to_owned(),
            defaults_file: dir.path().join("defaults"),
            ..config::Firewall::default()
        };
        fs::create_dir(&settings.wants_dir).unwrap();
        let facts = files(&settings, UNIT);
        assert_eq!((facts.link, facts.lame.len()), (Link::Absent, 2));
        std::os::unix::fs::symlink("/nowhere", settings.wants_dir.join(UNIT)).unwrap();
        assert_eq!(files(&settings, UNIT).link, Link::Dangling("/nowhere".to_owned()));
        std::os::unix::fs::symlink("/dev/null", dir.path().join(UNIT)).unwrap();
        assert!(files(&settings, UNIT).is_masked);
        assert_eq!(files(&settings, "other.service").lame, Vec::<String>::new());
    }
}
