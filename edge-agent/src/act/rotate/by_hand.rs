//! A site without an agent: what its operator runs there, which goes back by itself, and says when it runs.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, stdin},
};

use tokio::task::spawn_blocking;

use super::plan::Plan;
use crate::wireguard::facts::Key;

/// The site waits so long for a handshake with the new key.
const HANDSHAKE: u32 = 60;

/// So long after that the decision is made here, and the new key answers or it does not. Longer than it has to prove itself.
const DECISION: u32 = 40;

/// Tells it, and waits for the operator's word on stdin. Err: it is not to be done.
pub(super) async fn prompt(plan: &Plan, new: Key, told: &(dyn Fn(&str) + Sync)) -> Result<(), String> {
    let script = script(plan, new)?;
    told(&format!(
        "no agent is at site {} (none of its rows has a tunnel to this key), so its end is yours.\n\
             Run this there, as root; it goes back to the old key by itself:\n\n{script}\n\
             It says `waiting`. Press Enter here within {HANDSHAKE} s of that; end the input (Ctrl-D) to leave the old key.",
        plan.site
    ));
    let read = spawn_blocking(|| stdin().read_line(&mut String::new())).await;
    match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(0) if !stdin().is_terminal() => {
            Err("nobody is here to do the site's end: stdin is no terminal and has no line".to_owned())
        }
        Ok(0) => Err("the input ended".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the input cannot be read: {error}")),
    }
}

/// Exchanges the peer, and waits: for a handshake, then until the decision is made, then for an answer. Else it goes back.
fn script(plan: &Plan, new: Key) -> Result<String, String> {
    let own = plan.own_address.ok_or_else(|| {
        format!("{} has no address that the site could ask; give it one, such as 10.254.44.1/30", plan.interface)
    })?;
    let mut text = String::new();
    let _ = write!(
        text,
        "sh -s {} {new} {own} <<'END'\n{}END\n",
        plan.old,
        SCRIPT.replace("HANDSHAKE", &HANDSHAKE.to_string()).replace("DECISION", &DECISION.to_string())
    );
    Ok(text)
}

const SCRIPT: &str = r#"IF=$(wg show all allowed-ips | awk -v key="$1" '$2 == key { print $1; exit }')
[ -n "$IF" ] || { echo "no tunnel here has peer $1"; exit 1; }
of() { wg show "$IF" "$1" | awk -v key="$2" '$1 == key { $1 = ""; print }' | tr -d ' ' ; }
allowed=$(wg show "$IF" allowed-ips | awk -v key="$1" '$1 == key { $1 = ""; print }' | tr -s ' ' ',')
endpoint=$(of endpoints "$1") keepalive=$(of persistent-keepalive "$1") shared=$(of preshared-keys "$1")
swap() {
  set -- "$IF" peer "$1" remove peer "$2" allowed-ips "${allowed#,}" persistent-keepalive "$keepalive"
  [ "$endpoint" = "(none)" ] || set -- "$@" endpoint "$endpoint"
  if [ "$shared" = "(none)" ]; then wg set "$@"; else echo "$shared" | wg set "$@" preshared-key /dev/stdin; fi
}
back() { echo "$1: the old key is back"; }
swap "$1" "$2" || { echo "not exchanged"; exit 1; }
echo waiting
left=HANDSHAKE
until [ "$(of latest-handshakes "$2")" != 0 ]; do
  left=$((left - 1))
  [ $left -gt 0 ] || { swap "$2" "$1"; back "no handshake"; exit 1; }
  ping -c 1 -W 1 -I "$IF" "$3" >/dev/null 2>&1 || sleep 1
done
echo "there was a handshake with the new key; waiting DECISION s for the decision"
sleep DECISION
ping -c 5 -W 1 -I "$IF" "$3" >/dev/null 2>&1 || { swap "$2" "$1"; back "no answer"; exit 1; }
[ ! -f "/etc/wireguard/$IF.conf" ] || sed -i "s|$1|$2|" "/etc/wireguard/$IF.conf"
echo "the new key stays"
"#;
