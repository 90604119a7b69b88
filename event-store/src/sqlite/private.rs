//! Files that only their owner may read: they contain personal data, although sealed, and the ids of its persons.
//!
//! `SQLite` creates files with the mode that the process's umask allows, mostly readable by everyone, and gives the
//! files beside one its mode. So each file is created here first.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::file::with_suffix;

/// The suffixes of files that `SQLite` and we keep beside a file.
pub const BESIDE: [&str; 4] = ["-wal", "-shm", "-journal", ".lock"];

/// Creates the file, empty and only for its owner. Fails if it exists.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    let file = owners_only(File::options().create_new(true).write(true)).open(path)?;
    adopt(&file, path);
    Ok(())
}

/// Gives a file that was just created to the owner of its folder: if root creates a file for a service that runs as
/// another user, the service could not read it. Only root can change a file's owner.
pub fn adopt(file: &File, path: &Path) {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    #[cfg(unix)]
    if let (Ok(made), Ok(folder)) = (file.metadata(), fs::metadata(folder)) {
        use std::os::unix::fs::MetadataExt;
        if made.uid() == 0 {
            give(file, path, &made, &folder);
        }
    }
    #[cfg(not(unix))]
    let _ = (file, folder);
}

/// Gives a file the owner, group and mode of the file that it will replace.
pub fn liken(file: &File, path: &Path, replaced: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let (made, old) = (file.metadata()?, fs::metadata(replaced)?);
        give(file, path, &made, &old);
        file.set_permissions(fs::Permissions::from_mode(old.permissions().mode() & 0o777))?;
    }
    #[cfg(not(unix))]
    let _ = (file, path, replaced);
    Ok(())
}

#[cfg(unix)]
fn give(file: &File, path: &Path, made: &fs::Metadata, like: &fs::Metadata) {
    use std::os::unix::fs::MetadataExt;
    if (made.uid(), made.gid()) == (like.uid(), like.gid()) {
        return;
    }
    if let Err(error) = std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid())) {
        let (file, owner, group) = (path.display(), like.uid(), like.gid());
        tracing::warn!(%file, owner, group, %error, "this file has the wrong owner or group: give it to the user that runs watchword");
    }
}

/// Files created with these options are accessible only to their owner.
pub(crate) fn owners_only(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Creates the file if there is none; otherwise removes other users' access to it.
pub fn ensure(path: &Path) -> io::Result<()> {
    match make(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            narrow(path);
            Ok(())
        }
        made => made,
    }
}

/// Removes other users' access to a file and to those beside it, and logs that. Group access stays if only the group
/// has it: that is not an accident of a umask.
pub fn narrow(path: &Path) {
    narrow_one(path);
    for suffix in BESIDE {
        narrow_one(&with_suffix(path, suffix));
    }
}

/// What users other than the owner and the group may do to a file, as the last digit of its mode; 0 if it does not
/// exist.
pub fn for_others(path: &Path) -> u32 {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).map_or(0, |file| file.permissions().mode() & 0o007)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        0
    }
}

fn narrow_one(path: &Path) {
    if for_others(path) == 0 {
        return;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let file = path.display();
        match fs::set_permissions(path, fs::Permissions::from_mode(0o600)) {
            Ok(()) => {
                tracing::warn!(%file, "other users of this machine could read this file; now only its owner can");
            }
            Err(error) => {
                tracing::error!(%file, %error, "other users of this machine can read this file: have its owner run chmod 600 on it");
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn an_existing_file_and_those_beside_it_become_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        for (before, after) in
            [(0o644, 0o600), (0o664, 0o600), (0o666, 0o600), (0o601, 0o600), (0o640, 0o640), (0o400, 0o400)]
        {
            for file in [path.clone(), with_suffix(&path, "-wal"), with_suffix(&path, ".lock")] {
                fs::write(&file, "x").expect("written");
                fs::set_permissions(&file, fs::Permissions::from_mode(before)).expect("set");
            }
            ensure(&path).expect("it is there");
            for file in [path.clone(), with_suffix(&path, "-wal"), with_suffix(&path, ".lock")] {
                assert_eq!(mode(&file), after, "{before:o} of {}", file.display());
                fs::remove_file(file).expect("removed");
            }
        }
        ensure(&path).expect("made");
        assert_eq!((mode(&path), fs::read(&path).expect("read").len()), (0o600, 0));
        assert!(make(&path).is_err(), "an existing file is never replaced");
    }
}
