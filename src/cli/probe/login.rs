//! The login for a probe: from a file, a folder with a mounted Secret, or the environment. Passwords are not accepted
//! on the command line.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use zeroize::Zeroizing;

use crate::probe::Credentials;
use crate::secret::Secret;

/// The login.
#[derive(Args, Debug)]
pub(super) struct Login {
    /// Log in with the user (first line) and the password (second line) of this file. PATH can also be a folder with the
    /// files `username` and `password`, such as a mounted Secret of type kubernetes.io/basic-auth.
    #[arg(long, value_name = "PATH")]
    login_file: Option<PathBuf>,

    /// Log in as this user, with the password in MAILGRESS_PROBE_PASSWORD.
    #[arg(long, value_name = "NAME", conflicts_with = "login_file")]
    user: Option<String>,
}

impl Login {
    /// Returns the credentials; `None` if there are none.
    pub(super) fn credentials(&self) -> anyhow::Result<Option<Credentials>> {
        if let Some(path) = &self.login_file {
            let read = if path.is_dir() { from_folder(path) } else { from_file(path) };
            return read.map(Some).with_context(|| format!("--login-file {}", path.display()));
        }
        let Some(user) = self.user.clone() else { return Ok(None) };
        let Some(password) = std::env::var_os(PASSWORD) else {
            bail!("--user needs a password in the environment variable {PASSWORD}");
        };
        Ok(Some(Credentials { user, password: Secret::from(password.as_encoded_bytes()) }))
    }
}

fn from_file(path: &Path) -> anyhow::Result<Credentials> {
    let text = Zeroizing::new(std::fs::read_to_string(path)?);
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(user), Some(password)) if !user.is_empty() => {
            Ok(Credentials { user: user.to_owned(), password: Secret::from(password.as_bytes()) })
        }
        _ => bail!("the user must be on the first line, and the password on the second"),
    }
}

fn from_folder(folder: &Path) -> anyhow::Result<Credentials> {
    let value = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned())?;
        anyhow::Ok(Zeroizing::new(text))
    };
    let (user, password) = (value("username")?, value("password")?);
    // An editor's line break is not a part of the value.
    let line = |text: &str| text.trim_end_matches(['\r', '\n']).to_owned();
    let password = Zeroizing::new(line(&password));
    Ok(Credentials { user: line(&user), password: Secret::from(password.as_bytes()) })
}

/// The environment variable with the password for `--user`.
const PASSWORD: &str = "MAILGRESS_PROBE_PASSWORD";

#[cfg(test)]
mod tests {
    use super::*;

    fn login(path: &Path) -> anyhow::Result<Credentials> {
        let login = Login { login_file: Some(path.to_owned()), user: None };
        login.credentials().map(Option::unwrap)
    }

    #[test]
    fn user_and_password_are_two_lines_or_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("login");
        std::fs::write(&file, "me@example.test\r\nsecret\n").unwrap();
        for (name, text) in [("username", "me@example.test\n"), ("password", "secret")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        for path in [file.as_path(), folder.path()] {
            let found = login(path).unwrap();
            assert_eq!((found.user.as_str(), found.password.expose()), ("me@example.test", &b"secret"[..]));
        }
        std::fs::write(&file, "me\n").unwrap();
        assert!(login(&file).unwrap_err().root_cause().to_string().contains("second"));
        assert!(login(Path::new("/nowhere")).is_err());
    }
}
