//! Names of users, and the lists of users of routes.

use mailgress::controller::render::route::lists::{LineRules, Listed, users};
use mailgress::model::routes::Hashed;
use mailgress::model::{AllowedDomains, DomainPattern};
use mailgress::protocol::{User, UserRules};

use super::choices::{Choices, bit, pick};

/// Invariants:
/// * a user is its local part and its domain, and a domain of ASCII has one spelling;
/// * a list has exactly the users of its lines, each found by a login with the same text;
/// * no user of a domain that is not allowed is in a list.
pub(super) fn target(data: &[u8]) {
    let mut choices = Choices::new(data);
    let [flags, rules] = choices.bytes();
    let text = choices.rest();
    let rules = UserRules {
        default_domain: bit(rules, 0).then(|| "example.org".to_owned()),
        recipient_delimiter: pick(rules >> 1 & 3, [Some('+'), None, Some('-'), Some('\u{e4}')]),
        master_user_separator: pick(rules >> 3 & 3, [Some('*'), None, Some('%'), Some('\u{e4}')]),
    };
    for line in text.split(|byte| *byte == b'\n').take(20) {
        check_name(line, &rules);
    }
    let pattern = |text| DomainPattern::parse(text).expect("a pattern");
    let allowed = match bit(flags, 0) {
        true => AllowedDomains::Only(vec![pattern("a.example"), pattern("*.b.example")]),
        false => AllowedDomains::All,
    };
    // A default domain would change the names.
    let rules = LineRules { allowed, users: UserRules { default_domain: None, ..rules } };
    check_list(text, &users(text, &rules), bit(flags, 0));
}

fn check_name(text: &[u8], rules: &UserRules) {
    check_user(&User::new(text));
    let login = rules.of_name(text);
    check_user(&login.user);
    let recipient = rules.of_recipient(text);
    check_user(&recipient.user);
    if let Some(shorter) = &recipient.without_extension {
        check_user(shorter);
        assert!(recipient.user.local().starts_with(shorter.local()) && !shorter.local().is_empty());
        let behind = |user: &User| user.as_bytes()[user.local().len()..].to_vec();
        assert!(recipient.user.domain().is_none() || behind(shorter) == behind(&recipient.user));
    }
    if rules.default_domain.is_some() {
        assert!(
            login.user.domain().is_some() || std::str::from_utf8(text).is_err(),
            "{}",
            text.escape_ascii()
        );
    }
    // A domain of ASCII has one spelling.
    if let Some(at) = text.iter().rposition(|byte| *byte == b'@').filter(|_| text.is_ascii()) {
        let (local, domain) = text.split_at(at);
        let upper = [local, &domain.to_ascii_uppercase()].concat();
        assert_eq!(User::new(text), User::new(&upper), "{}", text.escape_ascii());
    }
}

fn check_user(user: &User) {
    let Some(domain) = user.domain() else { return };
    assert_eq!([user.local(), b"@", domain.as_bytes()].concat(), user.as_bytes());
    assert!(!domain.bytes().any(|byte| byte.is_ascii_uppercase()), "{domain:?}");
}

fn check_list(text: &[u8], listed: &Listed, is_limited: bool) {
    let Listed { list, ignored, .. } = listed;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines: Vec<&[u8]> = text
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .collect();
    assert!(ignored.first.len() <= 3 && ignored.first.len() <= ignored.count && ignored.count <= lines.len());
    assert_eq!(list.len(), list.names().count());
    assert!(list.len() + ignored.count <= lines.len());
    let found = lines.iter().filter(|line| list.has(&Hashed::new(User::new(line).as_bytes()))).count();
    assert!(found >= lines.len() - ignored.count, "a line is in no list and no message");
    for name in list.names() {
        assert!(name.is_ascii() && !name.iter().any(u8::is_ascii_control), "{}", name.escape_ascii());
        assert!(list.has(&Hashed::new(name)));
        let is_below = name.ends_with(b".b.example") && name.contains(&b'@');
        assert!(!is_limited || name.ends_with(b"@a.example") || is_below, "{}", name.escape_ascii());
    }
}
