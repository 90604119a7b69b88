//! Checks for a journal in KurrentDB: accounts of its server, and their rights on its streams.

use event_store::{KurrentRights, KurrentSettings, KurrentUrl};

use super::Findings;

/// The effects that keep a stream beside the journal.
const EFFECTS: [&str; 1] = ["mail"];

/// Who can read, write or delete the journal.
pub async fn rights(findings: &mut Findings, url: &KurrentUrl) {
    match KurrentRights::look(url, &KurrentSettings::default(), &EFFECTS).await {
        Ok(rights) => tell(findings, &url.to_string(), &rights),
        Err(error) => findings.fault("rights", format!("{url}: they cannot be read: {error}")),
    }
}

fn tell(findings: &mut Findings, url: &str, rights: &KurrentRights) {
    if !rights.asks_for_passwords {
        findings.fault(
            "rights",
            format!(
                "{url} asks for no password: anybody who reaches it can read, write and delete the journal. Start the \
                 server with TLS and users, and name an account in journal_url"
            ),
        );
        return;
    }
    let before = findings.0.len();
    let user = rights.user.as_deref().unwrap_or("nobody");
    if rights.is_administrator {
        findings.fault(
            "rights",
            format!(
                "{url}: the node works as {user}, an administrator of the server: anybody with its password can delete the \
                 journal, and let others write to it. Make an account in no group, as deploy/README.md says, and name it in \
                 journal_url; then have an administrator put it into the $acl of the streams"
            ),
        );
    }
    for account in &rights.factory {
        findings.fault(
            "rights",
            format!(
                "{url}: the account {account} has the default password. Set another, or \
                 disable it"
            ),
        );
    }
    for (stream, faults) in &rights.streams {
        for fault in faults {
            findings.fault(
                "rights",
                format!(
                    "{url}: the stream {stream}: {fault}. An administrator of the server sets its $acl, as deploy/README.md \
                     says"
                ),
            );
        }
    }
    if findings.0.len() == before {
        findings.fine(
            "rights",
            format!("{user} can read and append events, but not delete them; no other account can do either"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Verdict;

    fn told(change: impl FnOnce(&mut KurrentRights)) -> Vec<(bool, String)> {
        let mut rights = KurrentRights {
            user: Some("watchword".to_owned()),
            asks_for_passwords: true,
            is_administrator: false,
            factory: vec![],
            streams: vec![("watchword".to_owned(), vec![])],
        };
        change(&mut rights);
        let mut findings = Findings::default();
        tell(&mut findings, "esdb://db:2113", &rights);
        findings.0.into_iter().map(|(verdict, _, text)| (verdict == Verdict::Fault, text)).collect()
    }

    #[test]
    fn each_fault_of_a_server_is_told_with_what_to_do() {
        let fine = told(|_| {});
        assert!(
            fine.len() == 1 && !fine[0].0 && fine[0].1.contains("watchword can read and append"),
            "{fine:?}"
        );
        let faults = told(|rights| {
            rights.is_administrator = true;
            rights.user = Some("admin".to_owned());
            rights.factory = vec!["admin", "ops"];
            rights.streams[0].1 = vec!["mallory may write to it ($w of its $acl)".to_owned()];
        });
        let expected = [
            "works as admin",
            "account admin has the password",
            "account ops has the password",
            "mallory may write",
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for ((is_fault, text), part) in faults.iter().zip(expected) {
            assert!(*is_fault && text.contains(part) && text.contains("esdb://db:2113"), "{text}");
        }
        let open = told(|rights| rights.asks_for_passwords = false);
        assert!(open.len() == 1 && open[0].0 && open[0].1.contains("asks for no password"), "{open:?}");
    }
}
