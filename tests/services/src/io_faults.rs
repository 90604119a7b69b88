//! Calls of a process that write files, made to fail.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// Errors of the system, as Linux numbers them.
const EIO: u32 = 5;
const ENOSPC: u32 = 28;
const EROFS: u32 = 30;

/// The size of what is mapped, and where in it are: the number of calls that a fault may still happen to, the number
/// that it happened to, and the name.
const SIZE: usize = 256;
const LEFT: u64 = 12;
const HITS: u64 = 16;
const NAME: u64 = 20;

/// Which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// `write` and `pwrite`.
    Writes,
    /// `fsync` and `fdatasync`.
    Syncs,
    /// `ftruncate`.
    Truncates,
}

/// What happens to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An input/output error.
    Fails,
    /// There is no space.
    IsFull,
    /// The file system is read-only.
    IsReadOnly,
    /// Half of the bytes are written.
    IsShort,
    /// Each takes 0.3 s.
    IsSlow,
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoFault {
    /// What happens.
    pub what: What,
    /// To which calls.
    pub calls: Calls,
    /// On which files: the end of the path or, with a slash in front, its beginning.
    pub file: String,
    /// To how many of them; `None`: to all.
    pub times: Option<u32>,
}

/// Steers the calls of one process. It must be started with [`IoFaults::environment`].
pub struct IoFaults {
    folder: TempDir,
    control: File,
}

impl Default for IoFaults {
    fn default() -> Self {
        Self::new()
    }
}

impl IoFaults {
    /// Nothing fails yet. Needs `cc`.
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("io-faults-").expect("a temporary directory can be made");
        let control =
            File::options().read(true).write(true).create_new(true).open(folder.path().join("control"));
        let control = control.expect("a file can be made");
        control.set_len(SIZE as u64).expect("it can be extended");
        Self { folder, control }
    }

    /// The environment of the process.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let control = self.folder.path().join("control").display().to_string();
        [("LD_PRELOAD", library().display().to_string()), ("IO_FAULTS", control)]
    }

    /// From now on this happens, and nothing else.
    pub fn set(&self, fault: &IoFault) {
        self.heal();
        assert!(fault.file.len() < SIZE - 20, "the name is short enough");
        let mut name = vec![0; SIZE - 20];
        name[..fault.file.len()].copy_from_slice(fault.file.as_bytes());
        let (what, error) = match fault.what {
            What::Fails => (1, EIO),
            What::IsFull => (1, ENOSPC),
            What::IsReadOnly => (1, EROFS),
            What::IsShort => (2, 0),
            What::IsSlow => (3, 0),
        };
        let calls = match fault.calls {
            Calls::Writes => 1,
            Calls::Syncs => 2,
            Calls::Truncates => 4,
        };
        self.write(NAME, &name);
        for (at, number) in [(4, calls), (8, error), (LEFT, fault.times.unwrap_or(u32::MAX)), (HITS, 0)] {
            self.write(at, &u32::to_ne_bytes(number));
        }
        self.write(0, &u32::to_ne_bytes(what));
    }

    /// From now on nothing fails.
    pub fn heal(&self) {
        self.write(0, &u32::to_ne_bytes(0));
    }

    /// How many calls the last fault has happened to.
    pub fn hits(&self) -> u32 {
        let mut bytes = [0; 4];
        self.control.read_exact_at(&mut bytes, HITS).expect("it can be read");
        u32::from_ne_bytes(bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.control.write_all_at(bytes, at).expect("it can be written");
    }
}

/// The library, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let folder = TempDir::with_prefix("io-faults-").expect("a temporary directory can be made");
        let (source, library) = (folder.path().join("io_faults.c"), folder.path().join("io_faults.so"));
        fs::write(&source, include_str!("io_faults.c")).expect("it can be written");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&library).arg(&source).arg("-ldl");
        assert!(compiler.status().expect("there is a C compiler, cc").success(), "io_faults.c compiles");
        (folder, library)
    });
    library
}
