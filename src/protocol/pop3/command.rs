//! Parses one line of a POP3 client (NGINX section 6.2).

/// A command that is known before the login; borrowed from its line. It has no `Debug`, because it may contain a
/// password.
#[derive(PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// The rest of the line is one argument, including inner and trailing spaces.
    User(&'a [u8]),
    /// The rest of the line, as for USER.
    Pass(&'a [u8]),
    Apop(Vec<&'a [u8]>),
    Auth(Vec<&'a [u8]>),
    Capa,
    Quit,
    Noop,
    Stls,
}

/// Returns the command on a line, or `None` if nginx's parser rejects it.
pub(crate) fn parse(line: &[u8]) -> Option<Command<'_>> {
    if line.contains(&b'\r') {
        return None;
    }
    let verb_length = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
    let (verb, rest) = line.split_at_checked(verb_length)?;
    match verb.to_ascii_uppercase().as_slice() {
        b"USER" => return Some(Command::User(rest_of_line(rest))),
        b"PASS" => return Some(Command::Pass(rest_of_line(rest))),
        _ => {}
    }
    let words: Vec<&[u8]> = rest.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).collect();
    if words.len() > MAX_ARGUMENTS {
        return None;
    }
    Some(match verb.to_ascii_uppercase().as_slice() {
        b"APOP" => Command::Apop(words),
        b"AUTH" => Command::Auth(words),
        b"CAPA" => Command::Capa,
        b"QUIT" => Command::Quit,
        b"NOOP" => Command::Noop,
        b"STLS" => Command::Stls,
        _ => return None,
    })
}

fn rest_of_line(rest: &[u8]) -> &[u8] {
    let spaces = rest.iter().take_while(|&&byte| byte == b' ').count();
    rest.get(spaces..).unwrap_or_default()
}

/// nginx's limit for the arguments of a command.
const MAX_ARGUMENTS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_pass_keep_inner_and_trailing_spaces() {
        assert!(parse(b"PASS  pass with  spaces ") == Some(Command::Pass(b"pass with  spaces ")));
        assert!(parse(b"user a b") == Some(Command::User(b"a b")));
        assert!(parse(b"USER") == Some(Command::User(b"")));
        assert!(parse(b"USER  ") == Some(Command::User(b"")));
    }

    #[test]
    fn rejects_what_nginx_rejects() {
        for line in [&b""[..], b" NOOP", b"STAT", b"USER\rx", b"NOOP 1 2 3 4", b"UTF8", b"USERx me"] {
            assert!(parse(line).is_none(), "{}", line.escape_ascii());
        }
    }
}
