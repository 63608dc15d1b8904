//! Writes log lines to standard output: a bounded queue, and a thread that writes.
//!
//! Logging copies a line to memory and never waits for the reader of standard output. A line is dropped and counted if
//! the queue is full or the line cannot be written. When lines can be written again, a warning reports the number of
//! dropped ones. Nothing here ends the process.
//!
//! The thread writes all lines of a short interval at once: a wake-up and a write for each session would cost more than
//! the rest of its line.

mod line;

use std::io::{self, ErrorKind, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::{Condvar, Mutex, MutexGuard};
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, Registry};
use tracing_subscriber::fmt::MakeWriter;

use crate::model::metric::{self, PLAIN};

pub use line::{Encoding, LineFormat};

/// The log of the process. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Log(Arc<Queue>);

/// Lines that are not written yet.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<LogState>,
    /// Wakes the writer.
    filled: Condvar,
    /// Wakes callers of [`Log::flush`].
    written: Condvar,
    dropped: IntCounter,
    family: IntCounterVec,
}

#[derive(Debug)]
struct LogState {
    /// At most [`CAPACITY`] bytes.
    lines: Vec<u8>,
    writer: Writer,
    /// Someone waits until all lines are written.
    is_urgent: bool,
    /// Dropped lines that have not been reported.
    unreported: u64,
}

/// The state of the writing thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    /// There are no lines.
    Waiting,
    /// There are lines, and more may join them for [`GATHERING`].
    Gathering,
    Writing,
}

impl Log {
    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(output: impl Write + Send + 'static) -> anyhow::Result<Self> {
        let family = metric::LOG_LINES_DROPPED.unregistered_counters()?;
        let state = LogState {
            lines: Vec::with_capacity(CAPACITY),
            writer: Writer::Writing,
            is_urgent: false,
            unreported: 0,
        };
        let queue = Arc::new(Queue {
            state: Mutex::new(state),
            filled: Condvar::new(),
            written: Condvar::new(),
            dropped: family.with_label_values(&PLAIN),
            family,
        });
        let written = Arc::clone(&queue);
        let output = Output { to: output, is_mid_line: false };
        let thread = thread::Builder::new().name("log".to_owned());
        thread
            .spawn(move || write(&written, output))
            .context("cannot start the thread that writes the log")?;
        Ok(Self(queue))
    }

    /// Registers the counter of dropped lines.
    ///
    /// # Errors
    /// The registry already has this metric.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.0.family.clone()) as Box<dyn Collector>)
    }

    /// Logs panics as lines of this log. The default hook would write to standard error and wait for its reader.
    pub fn catch_panics(&self) {
        let log = self.clone();
        std::panic::set_hook(Box::new(move |panic| log.last_words(&description(panic))));
    }

    /// Logs the reason for the end of the process, regardless of the log filter, and waits until it is written.
    pub fn last_words(&self, text: &str) {
        if tracing::enabled!(tracing::Level::ERROR) {
            // A backtrace has many.
            for line in text.lines() {
                tracing::error!("{line}");
            }
        } else {
            self.0.push(format!("mailgress: {text}\n").as_bytes());
        }
        self.flush();
    }

    /// Waits until all lines are written, at most `LAST_WAIT`, because the reader may not read.
    pub fn flush(&self) {
        self.0.flush(LAST_WAIT);
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = &'a Queue;

    fn make_writer(&'a self) -> &'a Queue {
        &self.0
    }
}

/// `tracing-subscriber` writes each line with one call.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.len().saturating_add(line.len()) > CAPACITY {
            state.unreported = state.unreported.saturating_add(1);
            self.dropped.inc();
            return;
        }
        state.lines.extend_from_slice(line);
        let is_awaited = match state.writer {
            Writer::Waiting => true,
            Writer::Gathering => state.lines.len() >= CAPACITY / 2,
            Writer::Writing => false,
        };
        if is_awaited {
            state.writer = Writer::Writing;
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Waits for lines and moves all of them to `batch`. Returns the number of dropped lines to report now. Nothing is
    /// reported while the output does not work.
    fn take(&self, batch: &mut Vec<u8>, works: bool) -> u64 {
        batch.clear();
        let mut state = self.lock();
        while state.lines.is_empty() && !(works && state.unreported > 0) {
            state.writer = Writer::Waiting;
            state.is_urgent = false;
            self.written.notify_all();
            self.filled.wait(&mut state);
        }
        let deadline = Instant::now() + GATHERING;
        while !state.is_urgent && state.lines.len() < CAPACITY / 2 && Instant::now() < deadline {
            state.writer = Writer::Gathering;
            self.filled.wait_until(&mut state, deadline);
        }
        state.writer = Writer::Writing;
        std::mem::swap(&mut state.lines, batch);
        if works { std::mem::take(&mut state.unreported) } else { 0 }
    }

    fn lose(&self, lines: u64) {
        let mut state = self.lock();
        state.unreported = state.unreported.saturating_add(lines);
        drop(state);
        self.dropped.inc_by(lines);
    }

    fn flush(&self, bound: Duration) {
        let deadline = Instant::now() + bound;
        let mut state = self.lock();
        while state.writer != Writer::Waiting && Instant::now() < deadline {
            state.is_urgent = true;
            self.filled.notify_one();
            self.written.wait_until(&mut state, deadline);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock()
    }
}

/// Writes lines as long as the process runs.
fn write(queue: &Queue, mut output: Output<impl Write>) {
    let mut batch = Vec::with_capacity(CAPACITY);
    let mut works = true;
    loop {
        let lost = queue.take(&mut batch, works);
        if lost > 0 {
            // The queue was just emptied, so there is room for this line.
            tracing::warn!(
                lines = lost,
                "log lines were dropped: standard output was not read, or could not be written"
            );
        }
        let unwritten = output.write(&batch);
        works = unwritten == 0;
        if !works {
            queue.lose(unwritten);
        }
    }
}

/// The destination of lines.
struct Output<W> {
    to: W,
    /// The last write failed within a line.
    is_mid_line: bool,
}

impl<W: Write> Output<W> {
    /// Writes whole lines. Returns the number of lines that could not be written.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if self.is_mid_line && !self.write_all(b"\n").is_empty() {
            return count(lines);
        }
        let rest = self.write_all(lines);
        let unwritten = count(rest);
        let written = lines.len().saturating_sub(rest.len());
        self.is_mid_line = written > 0 && lines.get(written.saturating_sub(1)) != Some(&b'\n');
        unwritten
    }

    /// Writes bytes. Returns those that could not be written.
    fn write_all<'a>(&mut self, mut rest: &'a [u8]) -> &'a [u8] {
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => break,
                Ok(size) => rest = rest.get(size..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The pipe is non-blocking, set by another process that shares it.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(_) => break,
            }
        }
        rest
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Describes a panic in one line, with the backtrace if `RUST_BACKTRACE` is set.
fn description(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    format!("thread {thread} panicked at {place}: {text}; this is an error in Mailgress{backtrace}")
}

/// Size of the queue in bytes: the lines of several thousand sessions.
const CAPACITY: usize = 1 << 20;
/// How long the first line waits for others, which are written with it.
const GATHERING: Duration = Duration::from_millis(20);
/// How long the process waits at its end for the last lines to be written.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// Interval of attempts to write to a full pipe that is non-blocking.
const RETRY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    use tracing::info;

    /// A simulated standard output.
    #[derive(Default)]
    struct Inner {
        written: Vec<u8>,
        behaviour: Behaviour,
    }

    #[derive(Clone, Copy, Default, PartialEq)]
    enum Behaviour {
        #[default]
        Works,
        Stalls,
        /// Accepts this many bytes, then fails.
        Fails(usize),
    }

    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<Inner>, Condvar)>);

    impl Pipe {
        fn behave(&self, behaviour: Behaviour) {
            self.0.0.lock().behaviour = behaviour;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().written.clone()).unwrap()
        }

        fn eventually_has(&self, text: &str) {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !self.text().contains(text) {
                assert!(Instant::now() < deadline, "{text:?} is not in {:?}", self.text());
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let stalls = |inner: &mut Inner| inner.behaviour == Behaviour::Stalls;
            let mut inner = self.0.0.lock();
            self.0.1.wait_while(&mut inner, stalls);
            let size = match &mut inner.behaviour {
                Behaviour::Fails(0) => return Err(ErrorKind::BrokenPipe.into()),
                Behaviour::Fails(left) => {
                    let size = bytes.len().min(*left);
                    *left -= size;
                    size
                }
                _ => bytes.len(),
            };
            inner.written.extend_from_slice(&bytes[..size]);
            Ok(size)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The writing thread logs warnings, so the subscriber is global to all tests and has a filter.
    #[test]
    fn lines_that_nobody_reads_are_dropped_counted_and_reported_when_lines_get_through_again_and_panics_are_lines()
     {
        let pipe = Pipe::default();
        let log = Log::start(pipe.clone()).unwrap();
        tracing_subscriber::fmt()
            .with_env_filter("mailgress::app::log=info")
            .with_writer(log.clone())
            .with_ansi(false)
            .init();
        info!("before");
        log.flush();
        assert!(pipe.text().ends_with("before\n"));

        pipe.behave(Behaviour::Stalls);
        let long = "x".repeat(1000);
        // If a call waited here, this test would never end.
        for _ in 0..3 * CAPACITY / long.len() {
            info!("{long}");
        }
        let dropped = log.0.dropped.get();
        assert!(dropped > 0);
        log.0.flush(Duration::from_millis(10));
        pipe.behave(Behaviour::Works);
        pipe.eventually_has(&format!("could not be written lines={dropped}\n"));

        pipe.behave(Behaviour::Fails(5));
        info!("in two halves");
        log.flush();
        info!("not written");
        log.flush();
        assert_eq!(log.0.dropped.get(), dropped + 2);
        pipe.behave(Behaviour::Works);
        info!("after");
        pipe.eventually_has("could not be written lines=2\n");
        let text = pipe.text();
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        assert!(lines[1].ends_with("after") && lines[2].len() == 5, "{lines:?}");

        let hook = std::panic::take_hook();
        log.catch_panics();
        let worker = thread::Builder::new().name("worker".to_owned());
        let panicked = worker.spawn(|| panic!("nobody expected this")).unwrap().join();
        std::panic::set_hook(hook);
        assert!(panicked.is_err());
        pipe.eventually_has("nobody expected this; this is an error in Mailgress");
        assert!(pipe.text().contains("ERROR") && pipe.text().contains("worker panicked at src/app/log.rs"));
    }

    #[test]
    fn a_line_is_written_whole_or_counted() {
        let pipe = Pipe::default();
        let mut output = Output { to: pipe.clone(), is_mid_line: false };
        pipe.behave(Behaviour::Fails(6));
        assert_eq!(output.write(b"one\ntwo\nthree\n"), 2);
        assert_eq!(output.write(b"four\n"), 1);
        pipe.behave(Behaviour::Works);
        assert_eq!(output.write(b"five\n"), 0);
        assert_eq!(pipe.text(), "one\ntw\nfive\n");
    }

    #[test]
    fn the_end_does_not_wait_longer_than_its_bound_for_a_reader_that_stalls() {
        let pipe = Pipe::default();
        pipe.behave(Behaviour::Stalls);
        let log = Log::start(pipe).unwrap();
        log.0.push(b"a line\n");
        let (done, ended) = mpsc::channel();
        thread::spawn(move || {
            log.flush();
            done.send(()).unwrap();
        });
        ended.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}
