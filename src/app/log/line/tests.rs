//! Both formats write the same bytes.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{debug, error, info, info_span, trace, warn};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// A subscriber's output.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Returns what the library and this module write for the same events, each line without its timestamp.
fn both(encoding: Encoding, events: fn()) -> [Vec<String>; 2] {
    [false, true].map(|is_ours| {
        let output = Output::default();
        let builder = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(output.clone());
        let dispatch = match (encoding, is_ours) {
            (Encoding::Text, false) => tracing::Dispatch::new(builder.with_target(false).finish()),
            (Encoding::Text, true) => tracing::Dispatch::new(
                builder
                    .with_target(false)
                    .map_event_format(|format| LineFormat::new(encoding, format))
                    .finish(),
            ),
            (Encoding::Json, _) => {
                let builder = builder.json().flatten_event(true).with_current_span(false);
                if is_ours {
                    let ours = builder.map_event_format(|format| LineFormat::new(encoding, format));
                    tracing::Dispatch::new(ours.finish())
                } else {
                    tracing::Dispatch::new(builder.finish())
                }
            }
        };
        tracing::dispatcher::with_default(&dispatch, events);
        let text = String::from_utf8(output.0.lock().clone()).unwrap();
        text.split_inclusive('\n').map(without_time).collect()
    })
}

fn without_time(line: &str) -> String {
    let start = line.find("20").unwrap();
    let (time, rest) = line[start..].split_at("2026-11-29T17:43:00.123456Z".len());
    assert!(time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'), "{line}");
    format!("{}{rest}", &line[..start])
}

fn events() {
    let odd = "quote \" backslash \\ tab \t é ✉ '";
    let controls = "bell \x07 escape \x1b[31m delete \x7f c1 \u{9b}";
    info!("a message");
    warn!(text = "plain", empty = "", odd, controls, "level");
    error!("{odd} {controls}");
    debug!(text = ?odd, shown = %odd, list = ?[1, 2], "level");
    trace!(
        small = -7,
        large = u64::MAX,
        yes = true,
        share = 0.5,
        tiny = 1e-7,
        whole = 3.0,
        none = None::<u32>
    );
    info!(nan = f64::NAN, infinite = f64::INFINITY, wide = u128::MAX, narrow = i128::MIN);
    info!(target: "a \"target\"", client = %"192.0.2.7:5555", logins_refused = Some(2_u32), "{}", 7);
    let source = io::Error::other("inner");
    let error: &(dyn std::error::Error + 'static) = &source;
    info!(error, "a failure");
    info!(bytes = &[1_u8, 2][..], "bytes");
    info!(r#type = "raw", "a raw name");
    info_span!("a_span", session = 1).in_scope(|| info!(text = "inside", "within a span"));
}

#[test]
fn lines_are_those_of_the_library() {
    for encoding in [Encoding::Text, Encoding::Json] {
        let [library, ours] = both(encoding, events);
        assert_eq!(library.len(), 11);
        for (library, ours) in library.iter().zip(&ours) {
            assert_eq!(library, ours);
        }
    }
}

#[test]
fn ordinary_events_do_not_need_the_library() {
    thread_local!(static WRITTEN: Cell<usize> = const { Cell::new(0) });
    struct Never;
    impl<S, N> FormatEvent<S, N> for Never
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        fn format_event(&self, _: &FmtContext<'_, S, N>, _: Writer<'_>, _: &Event<'_>) -> fmt::Result {
            WRITTEN.set(WRITTEN.get() + 1);
            Ok(())
        }
    }
    let output = Output::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(output.clone())
        .event_format(LineFormat::new(Encoding::Text, Never));
    tracing::subscriber::with_default(subscriber.finish(), || {
        info!(client = %"192.0.2.7:5555", login = "u@example.org", logins_refused = None::<u32>, seconds = 0.25, "quit");
        assert_eq!(WRITTEN.get(), 0);
        info!(wide = u128::MAX);
        assert_eq!(WRITTEN.get(), 1);
    });
    let text = String::from_utf8(output.0.lock().clone()).unwrap();
    assert!(
        text.ends_with("Z  INFO quit client=192.0.2.7:5555 login=\"u@example.org\" seconds=0.25\n"),
        "{text}"
    );
}

#[test]
fn timestamps_follow_the_seconds() {
    let mut line = String::new();
    for millis in [0, 999, 1_000, 1_795_974_180_123, 1_795_974_180_999, 1_795_974_181_000] {
        timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(millis), &mut line);
        line.push(' ');
    }
    assert_eq!(
        line,
        "1970-01-01T00:00:00.000000Z 1970-01-01T00:00:00.999000Z 1970-01-01T00:00:01.000000Z \
         2026-11-29T17:43:00.123000Z 2026-11-29T17:43:00.999000Z 2026-11-29T17:43:01.000000Z "
    );
}

#[test]
fn no_value_can_forge_a_line() {
    let [_, text] = both(Encoding::Text, || {
        let forged = "a\r\n2026-11-29T17:43:00.000000Z  INFO login refused\0\x1b[2K";
        info!(file = %forged, list = ?[forged], text = forged, "not read: {forged}");
    });
    assert_eq!(text.len(), 1);
    assert!(!text[0].trim_end_matches('\n').contains(char::is_control), "{text:?}");
    let escaped = "a\\r\\n2026-11-29T17:43:00.000000Z  INFO login refused\\x00\\x1b[2K";
    assert!(text[0].contains(&format!("not read: {escaped} file={escaped} list=")), "{text:?}");
}
