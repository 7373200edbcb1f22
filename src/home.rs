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
/// Where homes share what they downloaded.
pub const CACHE_VARIABLE: &str = "STIGMER_CACHE";
const OFF: &str = "off";
/// Below the user's home directory, where nothing says otherwise.
const CACHES: &str = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };

/// The user's home directory, as the system knows it.
pub fn user_home() -> Option<PathBuf> {
    home::home_dir()
}

#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    user_home: Option<PathBuf>,
    /// None where it is turned off, or nowhere.
    pub cache: Option<PathBuf>,
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
        Ok(Home { installation, instance, root, user_home, cache: None })
    }

    /// With the cache from `STIGMER_CACHE`, or `stigmer` where the system has
    /// them; `XDG_CACHE_HOME` counts only where it is absolute, as it must be.
    pub fn with_cache(self, variable: Option<OsString>, xdg: Option<OsString>) -> Home {
        let chosen = variable.filter(|value| !value.is_empty());
        let of_user = || self.user_home.as_ref().map(|user_home| user_home.join(CACHES));
        let xdg = xdg.map(PathBuf::from).filter(|base| base.is_absolute());
        let cache = match chosen {
            Some(chosen) if chosen == OFF => None,
            Some(chosen) => std::path::absolute(chosen).ok(),
            None => xdg.or_else(of_user).filter(|base| base.is_absolute()).map(|base| base.join("stigmer")),
        };
        Home { cache, ..self }
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
    fn the_cache_is_where_the_variable_says_or_the_system_has_them() {
        let cache = |variable: Option<&str>, xdg: Option<&str>| {
            let home = Home::resolve(None, Some("/home/ada".into())).unwrap();
            home.with_cache(variable.map(OsString::from), xdg.map(OsString::from)).cache
        };
        let of_user = Some(Path::new("/home/ada").join(CACHES).join("stigmer"));
        for (variable, xdg, expected) in [
            (None, None, of_user.clone()),
            (Some(""), Some("relative"), of_user.clone()),
            (None, Some(""), of_user),
            (Some(""), Some("/x"), Some("/x/stigmer".into())),
            (Some("/c"), Some("/x"), Some("/c".into())),
            (Some("off"), Some("/x"), None),
        ] {
            assert_eq!(cache(variable, xdg), expected, "{variable:?} {xdg:?}");
        }
        assert!(cache(Some("relative"), None).unwrap().is_absolute());
        let nowhere = Home::resolve(Some("/h".into()), None).unwrap();
        assert_eq!(nowhere.with_cache(None, None).cache, None);
    }

    #[test]
    fn paths_below_the_users_home_are_shown_with_a_tilde() {
        let home = Home::resolve(None, Some("/home/ada".into())).unwrap();
        assert_eq!(home.display(&home.installation.executable()), "~/.stigmer/bin/temporal");
        assert_eq!(home.display(Path::new("/opt/x")), "/opt/x");
    }
}
