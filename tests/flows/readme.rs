//! Pastes what the README says to paste, twice, into the usual shells.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::{Server, workspace};

/// The code blocks of the section, one after the other.
fn pasted() -> String {
    let readme = fs::read_to_string(workspace().join("README.md")).expect("there is one");
    let (_, section) = readme.split_once("<!-- try it: begin -->").expect("it has the section");
    let (section, _) = section.split_once("<!-- try it: end -->").expect("it ends");
    let blocks: Vec<_> = section.split("```").skip(1).step_by(2).collect();
    assert!(blocks.len() >= 7 && blocks.iter().all(|block| block.starts_with("sh\n")), "{section}");
    blocks.iter().map(|block| &block["sh\n".len()..]).collect()
}

/// What an interactive shell prints when the text is typed into it.
fn paste(shell: &str, arguments: &[&str], folder: &Path, text: &str) -> (String, String) {
    let mut child = Command::new(shell)
        .args(arguments)
        .current_dir(folder)
        .env("PS1", "")
        .env("PS2", "")
        .env_remove("http_proxy")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the shell starts");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_readme_says_can_be_pasted_twice_into_any_shell() {
    // Six pastes in a minute exceed the limits for one person.
    let server = Server::start_with(&[("WATCHWORD_RATE_LIMITS", "off")]).await;
    let folder = server.data().parent().expect("it is in a folder").to_owned();
    let address = server.base().trim_start_matches("http://").to_owned();
    let text = pasted()
        .replace("localhost:8080", &address)
        .replace("data/", &format!("{}/", server.data().display()));
    // In zsh, comments and globs without a match are errors at the prompt.
    let shells: [(&str, &[&str]); 3] = [("bash", &["--norc", "-i"]), ("zsh", &["-f", "-i"]), ("sh", &[])];
    for (shell, arguments) in shells {
        if Command::new(shell).arg("-c").arg(":").status().is_err() {
            eprintln!("{shell} is not installed: nothing is pasted into it");
            continue;
        }
        for time in 1..=2 {
            let (printed, said) = paste(shell, arguments, &folder, &text);
            for wrong in
                ["not found", "no matches", "parse error", "syntax error", "curl:", "bad pattern", "No such"]
            {
                assert!(!said.contains(wrong), "{shell}, {time}: {said}");
            }
            // Each answer is on its own line.
            let answers: Vec<serde_json::Value> = printed
                .lines()
                .filter(|line| line.starts_with('{'))
                .map(|line| {
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{shell}: {error}: {line}"))
                })
                .collect();
            assert_eq!(answers.len(), 15, "{shell}, {time}: {printed}\n{said}");
            // The only refusal is that of the banned user.
            let refused: Vec<_> = answers.iter().filter_map(|answer| answer["code"].as_str()).collect();
            assert_eq!(refused, ["unauthenticated"], "{shell}, {time}: {printed}");
            let logged_in = answers.iter().filter(|answer| answer["access_token"].is_string()).count();
            assert_eq!(
                logged_in, 4,
                "{shell}, {time}: registered, refreshed, by link, in the second app: {printed}"
            );
            assert!(printed.contains("position,"), "the table has a head: {printed}");
        }
    }
}
