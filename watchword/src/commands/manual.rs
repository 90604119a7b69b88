//! Files for packages: man pages and shell completions, generated from the same definitions as `--help`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, Globals, Run};

/// Write man pages and shell completions to a folder
#[derive(Debug, Args)]
pub struct Manual {
    /// The target folder
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

impl Run for Manual {
    fn run(self, _: &Globals) -> anyhow::Result<ExitCode> {
        run(&self.out)
    }
}

/// Writes `man/` and `completions/` to a folder.
fn run(out: &Path) -> anyhow::Result<ExitCode> {
    let (pages, completions) = (out.join("man"), out.join("completions"));
    for folder in [&pages, &completions] {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    clap_mangen::generate_to(Arguments::command(), &pages)
        .with_context(|| format!("the pages cannot be written to {}", pages.display()))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Arguments::command(), "watchword", &completions)
            .with_context(|| format!("the completions cannot be written to {}", completions.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_is_completed() {
        let folder = tempfile::tempdir().expect("a folder");
        run(folder.path()).expect("it writes");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("it is there");
        let completions = ["watchword.bash", "_watchword", "watchword.fish"]
            .map(|name| read(&format!("completions/{name}")));
        assert!(read("man/watchword.1").contains("sessions and users as events"));
        let command = Arguments::command();
        let shown = command.get_subcommands().filter(|it| !it.is_hide_set()).map(clap::Command::get_name);
        for name in shown {
            assert!(read(&format!("man/watchword-{name}.1")).contains(name), "{name}");
            assert!(completions.iter().all(|it| it.contains(name)), "{name} is not completed");
        }
    }
}
