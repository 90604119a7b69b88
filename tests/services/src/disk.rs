//! A disk that can be filled.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A small separate disk, in memory. Mounting it requires root, or `sudo` without a password.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// A disk of this many MiB.
    pub fn new(size: u32) -> Self {
        let folder = TempDir::with_prefix("disk-test-").expect("a temporary directory can be made");
        let options = format!("size={size}m,mode=1777");
        let mounted =
            as_root(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(folder.path()));
        assert!(mounted, "a disk can be mounted, as root");
        Self { folder }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills it except for this many bytes.
    pub fn fill(&self, room: u64) {
        let mut ballast = File::create(self.ballast()).expect("a file can be made");
        let zeros = vec![0; 64 * 1024];
        while ballast.write_all(&zeros).is_ok() {}
        let length = ballast.metadata().expect("it has a length").len();
        ballast.set_len(length.saturating_sub(room)).expect("it can be cut");
    }

    /// Makes room again.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: processes with open files on it end right after.
        as_root(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

/// Runs a command and, if that fails, runs it again as root.
fn as_root(command: &mut Command) -> bool {
    let runs = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let mut again = Command::new("sudo");
    again.arg("-n").arg(command.get_program()).args(command.get_args());
    runs(command) || runs(&mut again)
}
