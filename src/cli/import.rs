//! `mailgress import nginx`: converts an nginx or Angie mail configuration to manifests.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use glob::MatchOptions;

use crate::import::{self, Bundle, Inspected, Note, Problem, Refused, Source};
use crate::tls::parse::{self, ParseError};
use crate::words::counted;

use super::files::{STDIN, STDIN_SHOWN};
use super::yaml;

/// `mailgress import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The source.
    #[command(subcommand)]
    pub from: From,
}

/// The sources.
#[derive(Debug, Subcommand)]
pub enum From {
    /// Convert the `mail` block of an nginx or Angie configuration. Standard error names directives without an equivalent.
    Nginx(Nginx),
}

/// `mailgress import nginx`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Nginx {
    /// The configuration, or what `nginx -T` printed; - for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Folder for relative paths in FILE [default: FILE's folder, or that of the first file of `nginx -T`].
    #[arg(long, value_name = "DIR")]
    pub prefix: Option<PathBuf>,
    /// Fail, and print no manifests, if anything has no equivalent. Only a `warning:` causes this, not a `note:`.
    #[arg(long)]
    pub strict: bool,
}

impl Import {
    /// Prints the manifests.
    ///
    /// # Errors
    ///
    /// Fails if standard output cannot be written.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.from {
            From::Nginx(nginx) if nginx.file == Path::new(STDIN) => {
                let file = PathBuf::from(STDIN_SHOWN);
                let (prefix, strict) = (nginx.prefix.clone(), nginx.strict);
                let source = Stdin::read_all()?;
                Nginx { file, prefix, strict }.import(
                    &source,
                    &mut io::stdout().lock(),
                    &mut io::stderr().lock(),
                )
            }
            From::Nginx(nginx) => nginx.run(&mut io::stdout().lock(), &mut io::stderr().lock()),
        }
    }
}

impl Nginx {
    fn run(&self, out: &mut impl Write, err: &mut impl Write) -> anyhow::Result<ExitCode> {
        self.import(&Disk, out, err)
    }

    fn import(
        &self,
        source: &dyn Source,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> anyhow::Result<ExitCode> {
        let imported = match import::nginx(&self.file, self.prefix.as_deref(), source) {
            Ok(imported) => imported,
            Err(refused) => return report_refusal(&refused, err),
        };
        let warnings = imported.notes.iter().map(|note| (note, WARNING));
        let mut lines: Vec<(&Note, &str)> =
            warnings.chain(imported.advice.iter().map(|note| (note, ADVICE))).collect();
        lines.sort();
        for (Note { place, message }, kind) in lines {
            writeln!(err, "{place}: {kind}: {message}")?;
        }
        let (warnings, advice) = (imported.notes.len(), imported.advice.len());
        if (warnings, advice) != (0, 0) {
            writeln!(err, "{}, {}", counted(warnings, "warning"), counted(advice, "note"))?;
        }
        if self.strict && warnings > 0 {
            writeln!(err, "no manifests: --strict allows no warning")?;
            return Ok(ExitCode::FAILURE);
        }
        for manifest in &imported.manifests {
            write!(out, "---\n{}", yaml::to_string(&manifest.document()?)?)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes all problems last, so that they are visible at the end of the output.
fn report_refusal(refused: &Refused, err: &mut impl Write) -> anyhow::Result<ExitCode> {
    for Note { place, message } in &refused.notes {
        writeln!(err, "{place}: {WARNING}: {message}")?;
    }
    for Problem { place, message } in &refused.problems {
        writeln!(err, "{place}: error: {message}")?;
    }
    let which = match refused.problems.len() {
        1 => "the last line".to_owned(),
        count => format!("the last {count} lines"),
    };
    writeln!(err, "no manifests: correct {which} above")?;
    Ok(ExitCode::FAILURE)
}

/// The files and the name resolution of this host.
struct Disk;

/// Bytes of a file. No configuration, certificate or key is larger.
const MAX_FILE: u64 = 3 << 20;

impl Source for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut content)?;
        if content.len() as u64 > MAX_FILE {
            return Err(io::Error::other("it is larger than 3 MiB, and no configuration of nginx"));
        }
        Ok(content)
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let options = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let found = glob::glob_with(&pattern.to_string_lossy(), options);
        let mut paths: Vec<PathBuf> = found.into_iter().flatten().flatten().collect();
        paths.sort();
        paths
    }

    fn resolve(&self, host: &str) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in (host, 0).to_socket_addrs().into_iter().flatten() {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        addresses
    }

    fn inspect(&self, name: &str, chain: &[u8], key: &[u8]) -> Vec<Inspected> {
        let secret = format!("Secret {name}");
        let parsed = match parse::certificate(&secret, chain, key) {
            Ok(parsed) => parsed,
            Err(error) => return unusable(error).into_iter().collect(),
        };
        let unusual = parsed
            .warnings
            .iter()
            .map(|warning| format!("{}; {}", warning.problem(&secret), warning.remedy()));
        unusual.map(Inspected::Unusual).collect()
    }

    fn inspect_bundle(&self, bundle: Bundle, pem: &[u8]) -> Option<String> {
        let error = match bundle {
            Bundle::Authorities => parse::authorities(pem).err(),
            Bundle::Crls => parse::crls(pem).err(),
        };
        error.and_then(|error| match error {
            ParseError::UnusableAuthorities => None,
            ParseError::Pem { cause, .. } => Some(cause),
            other => Some(other.to_string()),
        })
    }
}

/// Returns `None` for an encrypted key, about which there already is a note.
fn unusable(error: ParseError) -> Option<Inspected> {
    Some(match error {
        ParseError::EncryptedKey(_) => return None,
        ParseError::KeyMismatch(_) => Inspected::KeyMismatch(None),
        ParseError::NotFirst { position, .. } => Inspected::KeyMismatch(Some(position)),
        ParseError::NotX509 { position, .. } => {
            Inspected::BadChain(format!("certificate {position} in it is not a valid X.509 certificate"))
        }
        ParseError::BrokenKey(_) => Inspected::BadKey("it contains no valid private key".to_owned()),
        ParseError::Pem { what, cause } if what.starts_with("tls.key") => Inspected::BadKey(cause),
        ParseError::Pem { cause, .. } => Inspected::BadChain(cause),
        other => Inspected::Unusable(format!("this certificate cannot be served: {other}")),
    })
}

/// Like [`Disk`], but the configuration is read from standard input.
struct Stdin(Vec<u8>);

impl Stdin {
    fn read_all() -> io::Result<Self> {
        let mut text = Vec::new();
        io::stdin().lock().take(MAX_STDIN).read_to_end(&mut text)?;
        Ok(Self(text))
    }
}

impl Source for Stdin {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new(STDIN_SHOWN) { Ok(self.0.clone()) } else { Disk.read(path) }
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        Disk.glob(pattern)
    }

    fn resolve(&self, host: &str) -> Vec<IpAddr> {
        Disk.resolve(host)
    }

    fn inspect(&self, name: &str, chain: &[u8], key: &[u8]) -> Vec<Inspected> {
        Disk.inspect(name, chain, key)
    }

    fn inspect_bundle(&self, bundle: Bundle, pem: &[u8]) -> Option<String> {
        Disk.inspect_bundle(bundle, pem)
    }
}

/// The prefix of notes about what has no equivalent, which `--strict` counts.
const WARNING: &str = "warning";
/// The prefix of notes about what has an equivalent, or needs none.
const ADVICE: &str = "note";
/// The maximum number of bytes that are read from standard input.
const MAX_STDIN: u64 = 64 << 20;

const AFTER_HELP: &str = "\
Exit status: 0 manifests were printed; 1 none were; 2 usage error.";

#[cfg(test)]
mod tests;
