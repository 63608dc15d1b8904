//! Reads the output of `nginx -T`: all files of a configuration, each after a line with its name.
//!
//! Includes are resolved only from the dump, because files with the same name on this machine may belong to another
//! nginx.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// The files of a dump in their order; at least one.
pub(super) struct Dump {
    main: (PathBuf, Vec<u8>),
    included: Vec<(PathBuf, Vec<u8>)>,
}

impl Dump {
    /// Reads a dump; `None` if the text is not a dump. nginx's messages about the configuration test may precede it.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut lines = text.split_inclusive(|byte| *byte == b'\n').skip_while(|line| is_message(line));
        let mut main = (name(lines.next()?)?, Vec::new());
        let mut included: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        for line in lines {
            match name(line) {
                Some(name) => included.push((name, Vec::new())),
                None => included.last_mut().unwrap_or(&mut main).1.extend_from_slice(line),
            }
        }
        Some(Self { main, included })
    }

    /// Returns the name and the text of the main file.
    pub(super) fn main(&self) -> (&Path, &[u8]) {
        (&self.main.0, &self.main.1)
    }

    /// Returns the text of a file.
    pub(super) fn file(&self, path: &Path) -> Option<&[u8]> {
        self.files().find(|(name, _)| name == path).map(|(_, text)| text.as_slice())
    }

    /// Returns the files that match a pattern, sorted.
    pub(super) fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let options = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let Ok(pattern) = Pattern::new(&pattern.to_string_lossy()) else { return Vec::new() };
        let names = self.files().map(|(name, _)| name.clone());
        let mut found: Vec<PathBuf> = names.filter(|name| pattern.matches_path_with(name, options)).collect();
        found.sort();
        found.dedup();
        found
    }

    fn files(&self) -> impl Iterator<Item = &(PathBuf, Vec<u8>)> {
        std::iter::once(&self.main).chain(&self.included)
    }
}

/// Returns the name in `# configuration file NAME:`.
fn name(line: &[u8]) -> Option<PathBuf> {
    let line = str::from_utf8(line).ok()?.trim_end();
    let name = line.strip_prefix("# configuration file ")?.strip_suffix(':')?;
    (!name.is_empty()).then(|| name.into())
}

/// Tells whether a line is a message such as `nginx: the configuration file … syntax is ok`, or blank.
fn is_message(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line.is_empty() || PROGRAMS.iter().any(|program| line.starts_with(program.as_bytes()))
}

/// How messages of nginx and its forks start.
const PROGRAMS: [&str; 4] = ["nginx: ", "angie: ", "freenginx: ", "openresty: "];

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"nginx: [warn] something\n\
        nginx: the configuration file /etc/nginx/nginx.conf syntax is ok\n\
        # configuration file /etc/nginx/nginx.conf:\nmail {\n  include conf.d/*.conf;\n}\n\n\
        # configuration file /etc/nginx/conf.d/b.conf:\r\nb;\n\n\
        # configuration file /etc/nginx/conf.d/a.conf:\na;";

    #[test]
    fn a_dump_is_split_into_its_files() {
        let dump = Dump::read(TEXT).unwrap();
        let main = Path::new("/etc/nginx/nginx.conf");
        assert_eq!(dump.main(), (main, &b"mail {\n  include conf.d/*.conf;\n}\n\n"[..]));
        let [a, b] = ["a", "b"].map(|name| PathBuf::from(format!("/etc/nginx/conf.d/{name}.conf")));
        assert_eq!((dump.file(&a), dump.file(&b)), (Some(&b"a;"[..]), Some(&b"b;\n\n"[..])));
        assert_eq!(dump.file(Path::new("/etc/nginx/conf.d/c.conf")), None);
        assert_eq!(dump.glob(Path::new("/etc/nginx/conf.d/*.conf")), [a, b]);
        assert_eq!(dump.glob(Path::new("/etc/*.conf")), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_configuration_is_no_dump() {
        assert!(Dump::read(b"").is_none());
        assert!(Dump::read(b"nginx: \n\n").is_none());
        assert!(Dump::read(b"user nginx;\n# configuration file /etc/nginx/nginx.conf:\n").is_none());
    }
}
