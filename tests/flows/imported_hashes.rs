//! Hashes that the libraries of other systems make now, on this machine.

use std::process::Command;

use serde_json::{Value, json};
use tests::{Server, email, workspace};

use crate::python::environment;

/// One that Unicode writes in two ways, as it was typed when the hash was made.
const TYPED: &str = "pa\u{308}sswo\u{308}rter-93";

#[tokio::test]
async fn what_other_libraries_hash_logs_in_once_and_is_replaced() {
    let folder = workspace().join("tests/clients/hashes");
    let Some(python) = environment(&folder.join("requirements.txt"), "hashes-venv") else { return };
    let output = Command::new(python).arg(folder.join("make_hashes.py")).arg(TYPED).output();
    let output = output.expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let hashes: Value = serde_json::from_slice(&output.stdout).expect("the script prints JSON");
    let hashes = hashes.as_object().expect("an object");
    assert!(hashes.len() >= 19, "{hashes:?}");

    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    for (name, hash) in hashes {
        let address = email("ada");
        let body = json!({ "email": address, "password_hash": hash });
        app.post("admin/users").bearer(&key).json(&body).await.expect(201);
        app.login(&address, "passworter-93").await.problem(401, "invalid_credentials");
        let answer = app.login(&address, TYPED).await;
        assert_eq!(answer.status, 200, "{name}: {hash}: {}", answer.text);
        // Replaced by a hash of the NFC form.
        app.login(&address, "p\u{e4}ssw\u{f6}rter-93").await.expect(200);
    }
    let events = server.events().await;
    assert_eq!(tests::of_type(&events, "PasswordRehashed").len(), hashes.len());
}
