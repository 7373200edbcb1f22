//! Where everything is: the paths under `~/.stigmer`, and nothing else.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys;

/// Moves everything from `~/.stigmer`.
pub const HOME_VARIABLE: &str = "STIGMER_HOME";

/// The user's home directory, as the system knows it.
pub fn user_home() -> Option<PathBuf> {
    home::home_dir()
}

#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    user_home: Option<PathBuf>,
}

impl Home {
    /// The home from `STIGMER_HOME`, or `.stigmer` in the user's home directory.
    /// Absolute: a daemon changes its working directory.
    pub fn resolve(variable: Option<OsString>, user_home: Option<PathBuf>) -> Result<Home> {
        let chosen = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = match (chosen, &user_home) {
            (Some(root), _) => root,
            (None, Some(user_home)) if !user_home.as_os_str().is_empty() => user_home.join(".stigmer"),
            (None, _) => {
                return Err(Error::new("cannot find your home directory: HOME is not set")
                    .hint(format!("set HOME, or set {HOME_VARIABLE} to a directory for stigmer's files")));
            }
        };
        let root = std::path::absolute(&root).map_err(|cause| Error::io("resolve the path", root.display(), &cause))?;
        Ok(Home { root, user_home })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }
    pub fn temporal(&self) -> PathBuf {
        self.root.join("bin/temporal")
    }
    pub fn receipt(&self) -> PathBuf {
        self.root.join("bin/temporal.receipt")
    }
    pub fn database(&self) -> PathBuf {
        self.root.join("data/temporal.db")
    }
    pub fn log(&self) -> PathBuf {
        self.root.join("logs/temporal.log")
    }
    pub fn daemon_log(&self) -> PathBuf {
        self.root.join("logs/daemon.log")
    }
    /// Locked by the daemon as long as it lives.
    pub fn daemon_lock(&self) -> PathBuf {
        self.root.join("run/daemon.lock")
    }
    /// Locked, shared, by every `run` that uses the daemon.
    pub fn users_lock(&self) -> PathBuf {
        self.root.join("run/users.lock")
    }
    pub fn state(&self) -> PathBuf {
        self.root.join("run/daemon.state")
    }

    /// Makes the directories, for the user alone.
    pub fn create(&self) -> Result<()> {
        create_private(&self.root)?;
        let me = sys::effective_user();
        // Root may use any home: a mounted volume often belongs to the user outside.
        // It holds nothing but directories, so it may be sticky as /tmp is.
        let owner = check_owner(&self.root, STICKY, |owner| me == 0 || [me, 0].contains(&owner))?;
        for name in ["bin", "data", "logs", "run"] {
            let path = self.root.join(name);
            create_private(&path)?;
            let is_trusted = |other| [me, 0, owner].contains(&other);
            check_owner(&path, 0, is_trusted)?;
            // A link leads to where its owner wants.
            let link = std::fs::symlink_metadata(&path).map_or(me, |metadata| metadata.uid());
            if !is_trusted(link) {
                return Err(of_another_user(&path, link));
            }
        }
        Ok(())
    }

    /// A path as people write it: `~/...` where it is below the user's home.
    pub fn display(&self, path: &Path) -> String {
        match self.user_home.as_ref().and_then(|home| path.strip_prefix(home).ok()) {
            Some(rest) if rest.as_os_str().is_empty() => "~".into(),
            Some(rest) => format!("~/{}", rest.display()),
            None => path.display().to_string(),
        }
    }
}

/// In a directory with this bit nobody can replace the files of others.
const STICKY: u32 = 0o1000;
const WRITABLE_FOR_ALL: u32 = 0o002;

/// Who may write to a directory says what we execute from it. Returns the
/// owner, whom `is_trusted` must take. All may write only with the bit `excuse`.
fn check_owner(path: &Path, excuse: u32, is_trusted: impl Fn(u32) -> bool) -> Result<u32> {
    let metadata = std::fs::metadata(path).map_err(|cause| Error::io("read", path.display(), &cause))?;
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if mode & WRITABLE_FOR_ALL != 0 && mode & excuse == 0 {
        return Err(Error::new(format!("cannot use {}: everybody may write to it", path.display()))
            .hint(format!("chmod o-w {}, or set {HOME_VARIABLE} to a directory of your own", path.display())));
    }
    if !is_trusted(owner) {
        return Err(of_another_user(path, owner));
    }
    Ok(owner)
}

fn of_another_user(path: &Path, owner: u32) -> Error {
    Error::new(format!("cannot use {}: it belongs to another user (uid {owner})", path.display()))
        .hint(format!("set {HOME_VARIABLE} to a directory of your own"))
}

fn create_private(path: &Path) -> Result<()> {
    let failed = |cause: &io::Error| Error::io("create the directory", path.display(), cause);
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(cause) if path.exists() => {
            Err(failed(&cause).hint(format!("{} is in the way; move it, or set {HOME_VARIABLE}", path.display())))
        }
        Err(cause) => Err(failed(&cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_home_directory_and_an_empty_one_is_unset() {
        let user = Some(PathBuf::from("/home/ada"));
        let root = |variable: Option<&str>| {
            Home::resolve(variable.map(OsString::from), user.clone()).unwrap().root().to_owned()
        };
        assert_eq!(root(None), Path::new("/home/ada/.stigmer"));
        assert_eq!(root(Some("")), Path::new("/home/ada/.stigmer"));
        assert_eq!(root(Some("/srv/s")), Path::new("/srv/s"));
        assert!(root(Some("relative")).is_absolute());
        assert_eq!(Home::resolve(None, None).unwrap_err().exit_code(), 1);
    }

    #[test]
    fn paths_below_the_users_home_are_shown_with_a_tilde() {
        let home = Home::resolve(None, Some("/home/ada".into())).unwrap();
        assert_eq!(home.display(&home.temporal()), "~/.stigmer/bin/temporal");
        assert_eq!(home.display(Path::new("/opt/x")), "/opt/x");
    }
}
