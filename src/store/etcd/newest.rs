//! One question for many who want to know the newest revision.
//!
//! Invariant: an answer was asked for after its reader came; an older one could miss a write that the reader knows of.
//! So whoever comes while a question is under way waits for the next one, and shares it with all who came in between.
//!
//! When it breaks: all who waited for a question share its error. A reader that goes away in the middle of its question
//! leaves the question to the next.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::store::StoreError;

/// The newest revision, asked for as seldom as is right.
pub(super) struct Newest {
    /// Questions that were begun.
    begun: AtomicU64,
    last: Mutex<Answered>,
}

struct Answered {
    /// Number of the question, counted from 1.
    question: u64,
    answer: Result<u64, StoreError>,
}

impl Default for Newest {
    fn default() -> Self {
        Self { begun: AtomicU64::new(0), last: Mutex::new(Answered { question: 0, answer: Ok(0) }) }
    }
}

impl Newest {
    /// The answer of `ask`, by this reader or by another one that began later than this call.
    pub(super) async fn get<F>(&self, ask: impl FnOnce() -> F) -> Result<u64, StoreError>
    where
        F: Future<Output = Result<u64, StoreError>>,
    {
        let fresh_from = self.begun.load(Ordering::SeqCst) + 1;
        // Questions follow each other: the one who holds the lock asks.
        let mut last = self.last.lock().await;
        if last.question < fresh_from {
            let question = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let answer = ask().await;
            *last = Answered { question, answer };
        }
        last.answer.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    /// A store whose revision grows with every question; each takes a while.
    #[derive(Default)]
    struct Slow {
        newest: Newest,
        revision: AtomicU64,
        asked: AtomicU64,
    }

    impl Slow {
        async fn get(self: Arc<Self>) -> Result<u64, StoreError> {
            let ask = || async {
                self.asked.fetch_add(1, Ordering::SeqCst);
                let revision = self.revision.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                if revision == 13 { Err(StoreError::Unavailable("13".into())) } else { Ok(revision) }
            };
            self.newest.get(ask).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_together_share_an_answer_that_is_not_older_than_they() {
        let store = Arc::new(Slow::default());
        let mut readers = Vec::new();
        // Ten revisions, ten readers at each, 20 ms apart: five of the ten moments fall into one question.
        for revision in 1..=10 {
            store.revision.store(revision, Ordering::SeqCst);
            for _ in 0..10 {
                readers.push((revision, tokio::spawn(store.clone().get())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for (came_at, reader) in readers {
            let answer = reader.await.expect("no panic").expect("an answer");
            assert!(answer >= came_at, "came at {came_at}, was told {answer}");
        }
        assert_eq!(store.asked.load(Ordering::SeqCst), 3, "at 0, 100 and 200 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_shared_and_forgotten() {
        let store = Arc::new(Slow::default());
        let first = tokio::spawn(store.clone().get());
        tokio::time::sleep(Duration::from_millis(10)).await;
        store.revision.store(13, Ordering::SeqCst);
        let failing: Vec<_> = (0..5).map(|_| tokio::spawn(store.clone().get())).collect();
        assert_eq!(first.await.expect("no panic").ok(), Some(0));
        for reader in failing {
            assert!(reader.await.expect("no panic").is_err());
        }
        store.revision.store(14, Ordering::SeqCst);
        assert_eq!(store.clone().get().await.ok(), Some(14));
        assert_eq!(store.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_goes_away_leaves_its_question_to_the_next() {
        let store = Arc::new(Slow::default());
        let first = tokio::spawn(store.clone().get());
        tokio::time::sleep(Duration::from_millis(10)).await;
        store.revision.store(1, Ordering::SeqCst);
        let second = tokio::spawn(store.clone().get());
        tokio::time::sleep(Duration::from_millis(10)).await;
        first.abort();
        assert_eq!(second.await.expect("no panic").ok(), Some(1));
    }
}
