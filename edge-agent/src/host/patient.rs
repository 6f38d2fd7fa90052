//! Asks a file system what may never be answered: each question on a thread of its own, and never a second time while
//! the first hangs in the kernel.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout_at},
};

/// Questions by name, with those that have no answer yet.
#[derive(Debug)]
pub(super) struct Patient<T> {
    hanging: BTreeMap<String, JoinHandle<T>>,
}

impl<T> Default for Patient<T> {
    fn default() -> Self {
        Self { hanging: BTreeMap::new() }
    }
}

impl<T: Send + 'static> Patient<T> {
    /// Asks all of them side by side. The answers are in the order of the questions; an error says why there is none.
    pub(super) async fn ask<F>(
        &mut self,
        limit: Duration,
        questions: impl IntoIterator<Item = (String, F)>,
    ) -> Vec<Result<T, String>>
    where
        F: FnOnce() -> T + Send + 'static,
    {
        self.hanging.retain(|_, hanging| !hanging.is_finished());
        let deadline = Instant::now() + limit;
        let asked: Vec<_> = questions
            .into_iter()
            .map(|(name, question)| {
                let handle = (!self.hanging.contains_key(&name)).then(|| spawn_blocking(question));
                (name, handle)
            })
            .collect();
        let mut answers = Vec::new();
        for (name, handle) in asked {
            let Some(mut handle) = handle else {
                answers.push(Err("the file system still does not answer".to_owned()));
                continue;
            };
            answers.push(match timeout_at(deadline, &mut handle).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(_)) => Err("looking at it panicked: see the agent's log".to_owned()),
                Err(_) => {
                    self.hanging.insert(name, handle);
                    Err(format!("the file system did not answer within {limit:?}"))
                }
            });
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    #[tokio::test]
    async fn what_hangs_or_panics_has_no_answer_and_delays_no_other() {
        let (release, held) = channel::<()>();
        let mut patient = Patient::default();
        let question = |name: &str, held: Option<Receiver<()>>| {
            let copy = name.to_owned();
            let ask = move || match (copy.as_str(), held) {
                ("bad", _) => panic!("as asked"),
                (_, Some(held)) => held.recv().map_or(0, |()| 1),
                (_, None) => 2,
            };
            (name.to_owned(), ask)
        };
        let limit = Duration::from_millis(50);
        let first =
            patient.ask(limit, [question("slow", Some(held)), question("bad", None), question("good", None)]).await;
        assert!(matches!(&first[..], [Err(_), Err(_), Ok(2)]), "{first:?}");
        let again = patient.ask(limit, [question("slow", None)]).await;
        assert_eq!(again, [Err("the file system still does not answer".to_owned())], "not asked twice");
        release.send(()).unwrap();
        while !patient.hanging["slow"].is_finished() {
            tokio::task::yield_now().await;
        }
        assert_eq!(patient.ask(limit, [question("slow", None)]).await, [Ok(2)]);
    }
}
