//! Files that are whole or not there: each is written beside its place, synced, and gets its name only then. A full disk
//! or a crash leaves no empty and no half-written one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::clock::random;
use crate::sqlite::private;

/// Durably writes a new file that only its owner can access. Fails if there is one already.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, false)
}

/// Durably writes a file that only its owner can access, and replaces the one that is there.
pub fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, true)
}

/// Writes this many bytes to a file that is removed again, to hear from the system whether it can.
pub fn try_to_write(folder: &Path, size: usize) -> io::Result<()> {
    let unfinished = Unfinished(beside(&folder.join("try"))?);
    let mut options = File::options();
    private::owners_only(options.create_new(true).write(true)).open(&unfinished.0)?.write_all(&vec![0; size])
}

/// Makes the names of a file's folder durable: a new name is, only once its folder is synced.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write(path: &Path, bytes: &[u8], replaces: bool) -> io::Result<()> {
    let unfinished = Unfinished(beside(path)?);
    let mut options = File::options();
    let mut file = private::owners_only(options.create_new(true).write(true)).open(&unfinished.0)?;
    private::adopt(&file, &unfinished.0);
    file.write_all(bytes)?;
    file.sync_all()?;
    if replaces {
        fs::rename(&unfinished.0, path)?;
    } else {
        name(&unfinished.0, path)?;
    }
    drop(unfinished);
    sync_folder_of(path)
}

/// A hidden name that nothing else has, so that two processes never write the same file.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    Ok(folder_of(path).join(format!(".{name}.{}.part", hex::encode(random::<8>()))))
}

/// Names a finished file, unless the name is taken. A link fails then, where a rename would replace.
fn name(unfinished: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(unfinished, path) {
        // A file system without links.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
            fs::rename(unfinished, path)
        }
        linked => linked,
    }
}

/// Removes what did not get its name.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.key");
        create(&path, b"one").expect("written");
        assert_eq!(create(&path, b"two").expect_err("it is taken").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("read"), b"one");
        put(&path, b"three").expect("replaced");
        assert_eq!(fs::read(&path).expect("read"), b"three");
        assert_eq!(private::for_others(&path), 0);
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
    }
}
