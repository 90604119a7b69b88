//! `user create`, with a password hash from another system.

use std::fs;
use std::process::Command;

use super::{World, set_mode, succeeded};

/// Of `violet-Kettle-93`, made by ASP.NET Core Identity.
const HASH: &str = "AQAAAAIAAYagAAAAEGtb3qchjOAn+DezQi2ufCJyNP0aiVKF2n3NeFfTvoSkNyNwrXwg/1DOF/J3Ay1qsQ==";

#[test]
fn an_imported_user_logs_in_with_their_old_password() {
    let world = World::new();
    let file = world.path("hash.txt");
    fs::write(&file, format!("{HASH}\n")).expect("written");
    let create =
        ["user", "create", "default", "ada@example.com", "--name", "Ada", "--password-hash-file", "hash.txt"];
    let server = world.serve();
    let at = ["--url", server.url.as_str()];

    set_mode(&file, 0o644);
    let message = world.refused(&[&create[..], &at].concat());
    assert!(message.contains("hash.txt"), "{message}");
    set_mode(&file, 0o600);
    let id = succeeded(&world.run(&[&create[..], &at].concat()));
    assert!(id.trim().parse::<uuid::Uuid>().is_ok(), "{id}");
    let login = |password: &str| {
        let body = format!("{{\"email\":\"ada@example.com\",\"password\":\"{password}\"}}");
        let url = format!("{}/v1/apps/default/auth/login", server.url);
        let output = Command::new("curl")
            .args([
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-H",
                "Content-Type: application/json",
                "-d",
                &body,
                &url,
            ])
            .output()
            .expect("curl runs");
        succeeded(&output)
    };
    assert_eq!([login("violet-Kettle-94"), login("violet-Kettle-93")], ["401", "200"]);

    let again = world.refused(&[&create[..], &at].concat());
    assert!(again.contains("email_taken"), "{again}");
    fs::write(&file, "$2y$31$Za6kSf/3fXd.E377205mR.ilN7fYJJYJqvQxxbXS8dZTmpPELisCy").expect("written");
    let grace = ["user", "create", "default", "grace@example.com", "--password-hash-file", "hash.txt"];
    let message = world.refused(&[&grace[..], &at].concat());
    assert!(message.contains("import.max_hash_cost"), "{message}");
}
