//! How the journal asks the database: reads through the pool, appends through the writer, both bounded.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::timeout;

use super::PostgresJournal;
use super::ticket::Ticket;
use super::writer::Request;
use crate::journal::{Append, AppendError, Appended, StoreError};
use crate::requests;

impl PostgresJournal {
    pub(super) async fn read<T, F>(&self, run: impl Fn() -> F + Send + Sync) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, sqlx::Error>> + Send,
    {
        let seen = &self.history.seen;
        loop {
            seen.check()?;
            let generation = self.history.generation();
            let read = tokio::select! {
                biased;
                read = self.reach.retried(&run) => read,
                _ = seen.lost() => continue,
            };
            seen.check()?;
            // What a server said that was left behind meanwhile is asked of its successor.
            if read.is_err() || self.history.generation() == generation {
                return Ok(read?);
            }
        }
    }

    pub(super) async fn send(&self, append: Append) -> Result<Appended, AppendError> {
        self.history.seen.check().map_err(|error| AppendError::Unavailable(error.to_string().into()))?;
        let ticket = Arc::new(Ticket::default());
        let append = requests::append(&self.requests, append, |append, answer| Request::Append {
            append,
            answer,
            ticket: Arc::clone(&ticket),
        });
        let mut append = pin!(timeout(self.answer, append));
        let appended = tokio::select! {
            biased;
            appended = &mut append => appended,
            // The writer may be busy with what it sent earlier: what waits behind that need not wait longer.
            refusal = self.reach.refusal() => {
                if ticket.withdraw() {
                    return Err(AppendError::Unavailable(refusal.to_string().into()));
                }
                append.await
            }
        };
        appended.unwrap_or_else(|_| {
            let silent = "the database does not answer".to_owned();
            // What the writer took may still be written: it sends it until it knows the outcome.
            Err(if ticket.withdraw() {
                AppendError::Unavailable(silent.into())
            } else {
                AppendError::Unknown(silent)
            })
        })
    }
}
