//! The stand-in for a KurrentDB server that the tests use, as a program: for trying or measuring a journal without a
//! server. It keeps everything in memory and requires no password unless accounts are given.
//!
//! ```text
//! cargo run -p event-store --features kurrentdb-tests --example kurrentdb-stand-in -- 127.0.0.1:2113 [name:password …]
//! ```
#![expect(dead_code, reason = "tests use more of it")]

#[path = "../tests/kurrentdb/protocol.rs"]
mod protocol;
#[path = "../tests/kurrentdb/server.rs"]
mod server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:2113".to_owned());
    let accounts: Vec<String> = arguments.collect();
    let accounts: Option<Vec<_>> = accounts.iter().map(|account| account.split_once(':')).collect();
    let accounts = accounts.ok_or("give accounts as name:password")?;
    let server = server::Server::start_at(&address, &accounts, None).await;
    println!("{}", server.url());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
