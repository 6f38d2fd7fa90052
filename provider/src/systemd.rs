//! What systemd gives and is told: the socket that we listen on, that we are ready, a line of status, food for its watchdog.
//!
//! With a socket unit the kernel keeps connections while nobody accepts them, so that a restart refuses none. The watchdog
//! is fed only after work came back from the runtime's threads, and from those that may block. Without systemd nothing is
//! given, and nobody hears what is told.

use std::{io, net::SocketAddr, time::Duration};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The unit of the socket, as an operator knows it.
const UNIT: &str = "charliehub-provider.socket";
/// How old the line of status may be.
const STATUS: Duration = Duration::from_secs(5);

/// What is wrong with the socket that we were given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{UNIT} listens on {0} addresses, and we serve on one; leave one ListenStream= in it")]
    Several(usize),
    #[error("what {UNIT} listens on is no TCP socket; write ListenStream=ADDRESS:PORT in it")]
    NoTcp(#[source] io::Error),
    #[error(
        "{UNIT} listens on {given}, and `serve.listen` is {wanted}; write the same address to both: \
         systemctl edit {UNIT} (an empty ListenStream= before the new one), and `[serve] listen`"
    )]
    OtherAddress { given: SocketAddr, wanted: SocketAddr },
    #[error("the socket of {UNIT} cannot be used")]
    Unusable(#[from] io::Error),
}

/// The sockets that came with our start.
pub struct Given(ListenFd);

impl Given {
    /// Takes them. Once, and before there are other threads: what told of them is removed from the environment, so that no
    /// child takes them for its own.
    pub fn take() -> Self {
        Self(ListenFd::from_env())
    }

    /// The one to serve on: bound and listening where `wanted` says. `None`: there is none, and the address is ours to bind.
    pub fn listener(mut self, wanted: SocketAddr) -> Result<Option<TcpListener>, Error> {
        match self.0.len() {
            0 => return Ok(None),
            1 => {}
            several => return Err(Error::Several(several)),
        }
        let Some(listener) = self.0.take_tcp_listener(0).map_err(Error::NoTcp)? else { return Ok(None) };
        let given = listener.local_addr()?;
        if given != wanted {
            return Err(Error::OtherAddress { given, wanted });
        }
        listener.set_nonblocking(true)?;
        Ok(Some(TcpListener::from_std(listener)?))
    }
}

/// Says that we are ready, then how we are whenever that changed, and feeds the watchdog, until `stop`; then that we stop.
pub async fn tell(status: impl Fn() -> String, stop: CancellationToken) {
    let patience = sd_notify::watchdog_enabled();
    let mut told = status();
    say(&[NotifyState::Ready, NotifyState::Status(&told)]);
    let every = patience.map_or(STATUS, |patience| STATUS.min(patience / 3));
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! { _ = ticks.tick() => {}, () = stop.cancelled() => break }
        if patience.is_some() {
            if timeout(every, turns()).await.is_ok() {
                say(&[NotifyState::Watchdog]);
            } else {
                tracing::error!("no thread was free for {} s: the watchdog is not fed", every.as_secs_f32());
            }
        }
        let now = status();
        if now != told {
            told = now;
            say(&[NotifyState::Status(&told)]);
        }
    }
    say(&[NotifyState::Stopping]);
}

/// Ends when a thread of the runtime and one that may block have done something.
async fn turns() {
    TaskTracker::new().spawn(async {}).await.ok();
    spawn_blocking(|| ()).await.ok();
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_socket_the_address_is_ours_to_bind() {
        let none = Given(ListenFd::empty()).listener("127.0.0.1:8001".parse().unwrap());
        assert!(none.unwrap().is_none());
    }
}
