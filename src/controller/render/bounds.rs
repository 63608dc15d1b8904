//! Renders timeouts, limits and resolvers, with their defaults.

use std::time::Duration;

use ipnet::IpNet;

use crate::api::{Settings, common, limits};
use crate::controller::violation::Violation;
use crate::model::settings::AuthFailures;
use crate::model::{Limits, Resolver, Timeouts};
use crate::net::{BackendAddress, network};
use crate::protocol::Protocol;

use super::scope::Scope;
use super::units;

/// The default and the range of a duration.
pub(crate) struct Bounded {
    /// The value if none is configured.
    pub(crate) default: Duration,
    /// The minimum.
    pub(crate) least: Duration,
    /// The maximum.
    pub(crate) most: Duration,
}

/// The maximum of most durations. Longer ones are mistakes.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Returns the range of a timeout: from one millisecond to one year.
pub(crate) fn deadline(default: Duration) -> Bounded {
    Bounded { default, least: Duration::from_millis(1), most: YEAR }
}

/// Parses a duration within its range, or returns the default.
pub(crate) fn duration(
    scope: &Scope<'_>,
    path: &str,
    value: Option<&common::Duration>,
    bounded: Bounded,
) -> Duration {
    let Some(text) = value else { return bounded.default };
    let read = units::duration(&text.0).filter(|read| (bounded.least..=bounded.most).contains(read));
    read.unwrap_or_else(|| {
        let problem =
            format!("{:?} is not a duration between {:?} and {:?}", text.0, bounded.least, bounded.most);
        scope.report(Violation::invalid(path, problem, "write a duration such as 30s or 1h30m"));
        bounded.default
    })
}

pub(crate) fn timeouts(scope: &Scope<'_>, settings: &Settings) -> Timeouts {
    let timeouts = settings.timeouts.clone().unwrap_or_default();
    let read = |name: &str, value: Option<&common::Duration>, bounded| {
        duration(scope, &scope.setting(&format!("timeouts.{name}")), value, bounded)
    };
    let default = Timeouts::default();
    let half_closed = Bounded { default: default.half_closed, least: Duration::ZERO, most: YEAR };
    Timeouts {
        client: read("client", timeouts.client.as_ref(), deadline(default.client)),
        connect: read("connect", timeouts.connect.as_ref(), deadline(default.connect)),
        idle: read("idle", timeouts.idle.as_ref(), deadline(default.idle)),
        half_closed: read("halfClosed", timeouts.half_closed.as_ref(), half_closed),
        announce: timeouts.announce.unwrap_or(default.announce),
    }
}

/// Renders the limits of the listener. `frontend` renders those of the protocol.
pub(crate) fn limits(scope: &Scope<'_>, settings: &Settings) -> Limits {
    let limits = settings.limits.clone().unwrap_or_default();
    Limits {
        client_buffer: client_buffer(scope, limits.client_buffer.as_ref()),
        max_connections: limits.max_connections,
        max_connections_per_client: limits.max_connections_per_client,
        auth_failures: limits.auth_failures.map(|failures| auth_failures(scope, &failures)),
        exempt: networks(
            scope,
            &scope.setting("limits.exempt"),
            limits.exempt.as_deref().unwrap_or_default(),
        )
        .into(),
    }
}

/// Renders the delay of the greeting (SMTP).
pub(crate) fn greeting_delay(scope: &Scope<'_>, settings: &Settings, protocol: Protocol) -> Duration {
    let value = settings.smtp.as_ref().and_then(|smtp| smtp.greeting_delay.as_ref());
    let bounded = Bounded { default: Duration::ZERO, least: Duration::ZERO, most: YEAR };
    match protocol {
        Protocol::Smtp => duration(scope, &scope.setting("smtp.greetingDelay"), value, bounded),
        Protocol::Imap | Protocol::Pop3 | Protocol::Sieve => Duration::ZERO,
    }
}

/// Renders the resolver.
pub(crate) fn resolver(scope: &Scope<'_>, settings: &Settings) -> Resolver {
    let resolver = settings.resolver.clone().unwrap_or_default();
    let mut nameservers = Vec::new();
    for (index, text) in resolver.nameservers.iter().flatten().enumerate() {
        match units::backend_address(text, Some(53)) {
            Some(address @ (BackendAddress::Ip(_) | BackendAddress::Name { .. })) => {
                nameservers.push(address)
            }
            Some(BackendAddress::Unix(_)) | None => scope.report(Violation::invalid(
                &format!("{}[{index}]", scope.setting("resolver.nameservers")),
                format!("{text:?} is not a name server"),
                "write an address or name, with a port if it is not 53",
            )),
        }
    }
    let default = Resolver::default();
    let (ipv4, ipv6) = (resolver.ipv4.unwrap_or(default.ipv4), resolver.ipv6.unwrap_or(default.ipv6));
    if !ipv4 && !ipv6 {
        let path = scope.setting("resolver.ipv6");
        scope.report(Violation::invalid(&path, "neither IPv4 nor IPv6 is looked up", "leave one of them on"));
    }
    let timeout = &scope.setting("resolver.timeout");
    let valid = &scope.setting("resolver.valid");
    Resolver {
        nameservers,
        valid: resolver.valid.as_ref().map(|v| duration(scope, valid, Some(v), deadline(YEAR))),
        ipv4,
        ipv6,
        timeout: duration(scope, timeout, resolver.timeout.as_ref(), deadline(default.timeout)),
        statistics_zone: resolver.statistics_zone,
        looks_up_clients: settings.resolver.is_some(),
    }
}

fn client_buffer(scope: &Scope<'_>, size: Option<&common::Size>) -> usize {
    let default = Limits::default().client_buffer;
    let Some(size) = size else { return default };
    let bytes = units::size(size).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.filter(|bytes| CLIENT_BUFFER.contains(bytes)).unwrap_or_else(|| {
        let path = scope.setting("limits.clientBuffer");
        scope.report(Violation::invalid(
            &path,
            "the size is not between 512 and 1Mi",
            "write a size such as 4Ki",
        ));
        default
    })
}

/// Parses networks. An address is a network of itself.
pub(crate) fn networks(scope: &Scope<'_>, path: &str, texts: &[String]) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match network(text) {
            Some(network) => networks.push(network),
            None => scope.report(Violation::invalid(
                &format!("{path}[{index}]"),
                format!("{text:?} is not a network"),
                "write a network such as 10.0.0.0/8 or fd00::/8, or an address",
            )),
        }
    }
    networks
}

fn auth_failures(scope: &Scope<'_>, failures: &limits::AuthFailures) -> AuthFailures {
    let read = |name: &str, value: Option<&common::Duration>, minutes: u64| {
        let path = scope.setting(&format!("limits.authFailures.{name}"));
        duration(scope, &path, value, deadline(Duration::from_secs(minutes * 60)))
    };
    AuthFailures {
        count: failures.count.unwrap_or(10),
        window: read("window", failures.window.as_ref(), 10),
        ban: read("ban", failures.ban.as_ref(), 15),
    }
}

/// From the longest command line of SMTP to the maximum that a session may hold before its login.
const CLIENT_BUFFER: std::ops::RangeInclusive<usize> = 512..=1 << 20;
