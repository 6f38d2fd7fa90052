//! A transaction whose first statements are sent before the database said that it began: one round trip, not three.
//!
//! Statements run in the order in which they are sent. When one fails, those behind it fail too, so who polls them
//! together must let the first one speak: [`futures_util`]'s joins look at their futures in order, tokio's do not.

use std::ops::Deref;

use futures_util::{FutureExt as _, future::try_join};
use tokio_postgres::{Client, Error};

use crate::author::Author;

/// Rolled back when it is dropped, as a [`tokio_postgres::Transaction`] is.
pub(super) struct Transaction<'a> {
    client: &'a Client,
    done: bool,
}

impl<'a> Transaction<'a> {
    /// To be begun. The client is not used otherwise meanwhile.
    pub(super) fn on(client: &'a mut Client) -> Self {
        Self { client, done: false }
    }

    /// Begins, signs, and takes the revision lock; poll this before what is to run in it.
    pub(super) async fn begin(&self, author: &Author) -> Result<(), Error> {
        try_join(self.client.batch_execute("BEGIN"), author.begin(self.client)).await.map(drop)
    }

    pub(super) async fn commit(mut self) -> Result<(), Error> {
        self.done = true;
        self.client.batch_execute("COMMIT").await
    }

    pub(super) async fn rollback(mut self) -> Result<(), Error> {
        self.done = true;
        self.client.batch_execute("ROLLBACK").await
    }
}

impl Deref for Transaction<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.done {
            // It is sent with the first poll, before whatever the next user of the connection sends.
            drop(self.client.batch_execute("ROLLBACK").now_or_never());
        }
    }
}
