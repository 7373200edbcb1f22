//! Where everything is: the paths below `~/.stigmer`.
//!
//! What is installed and what runs are two things: an `Installation` holds the
//! executable, an `Instance` what one Temporal and its daemon write. Modules
//! that keep a file beside one of these (a lock, a mark, a partial download)
//! name it themselves.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ownership;

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
    pub installation: Installation,
    pub instance: Instance,
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
        let instance = Instance::in_directory(&root);
        let installation = Installation { directory: root.join("bin"), lock: instance.run.join("install.lock") };
        Ok(Home { installation, instance, root, user_home })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directories, for the user alone.
    pub fn create(&self) -> Result<()> {
        let owner = ownership::create_root(&self.root)?;
        let Instance { data, logs, run } = &self.instance;
        [&self.installation.directory, data, logs, run]
            .into_iter()
            .try_for_each(|directory| ownership::create_below(directory, owner))
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

/// What can be run: the Temporal CLI and its receipt. Instances share it.
#[derive(Debug, Clone)]
pub struct Installation {
    pub directory: PathBuf,
    /// Locked by whoever looks for the executable or installs one.
    pub lock: PathBuf,
}

impl Installation {
    pub fn executable(&self) -> PathBuf {
        self.directory.join("temporal")
    }
    pub fn receipt(&self) -> PathBuf {
        self.directory.join("temporal.receipt")
    }
}

/// What one running Temporal and its daemon write.
#[derive(Debug, Clone)]
pub struct Instance {
    data: PathBuf,
    logs: PathBuf,
    run: PathBuf,
}

impl Instance {
    fn in_directory(root: &Path) -> Instance {
        Instance { data: root.join("data"), logs: root.join("logs"), run: root.join("run") }
    }

    pub fn database(&self) -> PathBuf {
        self.data.join("temporal.db")
    }
    pub fn log(&self) -> PathBuf {
        self.logs.join("temporal.log")
    }
    pub fn daemon_log(&self) -> PathBuf {
        self.logs.join("daemon.log")
    }
    pub fn log_directory(&self) -> &Path {
        &self.logs
    }
    /// What ephemeral Temporals that failed had to say.
    pub fn ephemeral_log(&self) -> PathBuf {
        self.logs.join("ephemeral.log")
    }
    /// A configuration file for clients that says nothing.
    pub fn empty_configuration(&self) -> PathBuf {
        self.run.join("empty.toml")
    }
    /// Locked by the daemon as long as it lives.
    pub fn daemon_lock(&self) -> PathBuf {
        self.run.join("daemon.lock")
    }
    /// Locked, shared, by every `run` that uses the daemon.
    pub fn users_lock(&self) -> PathBuf {
        self.run.join("users.lock")
    }
    pub fn state(&self) -> PathBuf {
        self.run.join("daemon.state")
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
        assert_eq!(home.display(&home.installation.executable()), "~/.stigmer/bin/temporal");
        assert_eq!(home.display(Path::new("/opt/x")), "/opt/x");
    }
}
