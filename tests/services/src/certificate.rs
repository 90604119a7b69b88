//! Certificates for the servers of tests.

use std::path::Path;
use std::process::Command;

/// Creates an authority, `ca.pem`, and a certificate of it for `localhost`, with its key in `server.pem`.
pub(crate) fn make_certificate(folder: &Path) {
    const SCRIPT: &str = "
set -e
new() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \"$@\"; }
new -subj /CN=authority -keyout ca.key -out ca.pem
new -subj /CN=localhost -CA ca.pem -CAkey ca.key -keyout server.key -out server.crt \
  -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE
cat server.crt server.key >server.pem";
    let output = Command::new("sh").args(["-c", SCRIPT]).current_dir(folder).output().expect("a shell runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
