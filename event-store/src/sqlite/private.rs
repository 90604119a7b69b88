//! Files that nobody but their owner reads: what is in them is personal data, if sealed, and whom it is about.
//!
//! `SQLite` makes files as the process's mask lets it, mostly for everybody to read, and gives those beside one the mode of
//! that one. So each is made here first.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::file::with_suffix;

/// What `SQLite` and we keep beside a file.
pub const BESIDE: [&str; 4] = ["-wal", "-shm", "-journal", ".lock"];

/// Makes the file, empty and for its owner only. Refused where there is one.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    let file = owners_only(File::options().create_new(true).write(true)).open(path)?;
    adopt(&file, path);
    Ok(())
}

/// Gives a file that was just made to whom its folder belongs: made by root, beside a service that runs as somebody else, it
/// would be one that the service cannot read. Nobody but root can give files away.
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

/// Gives a file what the one has that it is to replace: owner, group and mode.
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
        tracing::warn!(%file, owner, group, %error, "this file should have another owner or group: give it to the user that runs watchword");
    }
}

/// Files that are made with these options are their owner's only.
pub(crate) fn owners_only(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Makes the file if there is none; takes from other users what they may do to one that is there.
pub fn ensure(path: &Path) -> io::Result<()> {
    match make(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            narrow(path);
            Ok(())
        }
        made => made,
    }
}

/// Takes from other users what they may do to a file and to what is beside it, and says so. A group that was let in stays,
/// where it was let in alone: that is no accident of a mask.
pub fn narrow(path: &Path) {
    narrow_one(path);
    for suffix in BESIDE {
        narrow_one(&with_suffix(path, suffix));
    }
}

/// What users other than the owner and the group may do to a file, as the last digit of its mode; nothing if it is not there.
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
                tracing::warn!(%file, "other users of this machine could read this file; now its owner alone can");
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
    fn what_is_there_is_narrowed_with_all_beside_it() {
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
        assert!(make(&path).is_err(), "never in another's place");
    }
}
