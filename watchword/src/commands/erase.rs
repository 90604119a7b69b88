//! `erase`: the erasure of a person, through the REST API.

use std::process::ExitCode;

use axum::http::Method;
use clap::Args;

use super::operator::Operation;
use super::user::UserTarget;
use super::{Globals, Run};

/// Erase a user for good: the key of their data is destroyed, and their address is free
#[derive(Debug, Args)]
pub struct Erase {
    #[command(flatten)]
    user: UserTarget,
}

impl Run for Erase {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| {
            let done = "erased".to_owned();
            let erase = Operation { method: Method::DELETE, path: String::new(), body: None, done };
            Box::pin(self.user.request(config, erase, |_| None)).await
        })
    }
}
