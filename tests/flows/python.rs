//! Clients in Python that nobody here wrote.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;
use tests::workspace;

/// What a script of `tests/clients` prints, which must end with 0. `None` without Python.
pub fn run(script: &str, arguments: &[&str]) -> Option<Value> {
    let python = environment(&workspace().join("tests/clients/requirements.txt"), "clients-venv")?;
    let output = Command::new(python)
        .arg(workspace().join("tests/clients").join(script))
        .args(arguments)
        .output()
        .expect("Python runs");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?}: {text}");
    Some(serde_json::from_slice(&output.stdout).expect("the script prints JSON"))
}

/// The interpreter of a virtual environment below `target/` with the libraries of a list, their wheels pinned by hash.
/// Without Python there is none, and the tests that need it print that they were skipped; `TEST_REQUIRE_PYTHON=1`, which
/// `.ci/run` sets, makes that a failure.
pub fn environment(requirements: &Path, name: &str) -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let environment = workspace().join("target").join(name);
    let python = environment.join("bin/python");
    let stamp = environment.join("installed");
    let wanted = std::fs::read(requirements).expect("the requirements are in the repository");
    if std::fs::read(&stamp).is_ok_and(|it| it == wanted) {
        return Some(python);
    }
    let run = |program: &Path, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|it| it.status.success())
    };
    let directory = environment.to_str().expect("the path is UTF-8");
    let list = requirements.to_str().expect("the path is UTF-8");
    let installed = run(Path::new("python3"), &["-m", "venv", "--clear", directory])
        && run(
            &python,
            &["-m", "pip", "install", "-q", "--require-hashes", "--only-binary", ":all:", "-r", list],
        );
    if installed {
        std::fs::write(stamp, wanted).expect("target/ can be written");
        return Some(python);
    }
    assert!(std::env::var_os("TEST_REQUIRE_PYTHON").is_none(), "the libraries could not be installed");
    eprintln!("skipped: no Python with venv and pip");
    None
}
