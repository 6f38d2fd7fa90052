//! The wish that everything be read again: between who has it and the loop that follows the database.
//!
//! Somebody asks, the loop reads, and who compiles what was read answers. Several who ask at once get one read. A wish is
//! answered by a read that began after it, so that the answer is about what the database held when it was asked.

use tokio::sync::{mpsc, oneshot};

/// Wishes that wait for the loop to take them; more wait for those.
pub(super) const WAITING: usize = 16;

/// What a read of everything found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reread {
    pub revision: i64,
    /// Rows that were not held as they are.
    pub rows: usize,
}

/// One who waits for the answer. Dropped without one where the read cannot be done.
pub type Wish = oneshot::Sender<Reread>;

/// Asks the loop.
#[derive(Clone, Debug)]
pub struct Asker(mpsc::Sender<Wish>);

impl Asker {
    /// `None`: the read cannot be done. Without a database this waits for one; cancel it to stop waiting.
    pub async fn everything(&self) -> Option<Reread> {
        let (wish, answer) = oneshot::channel();
        self.0.send(wish).await.ok()?;
        answer.await.ok()
    }
}

/// One to ask with, and what the loop hears.
pub fn channel() -> (Asker, mpsc::Receiver<Wish>) {
    let (sender, wishes) = mpsc::channel(WAITING);
    (Asker(sender), wishes)
}
