//! What the engine and the raft library log, on its way to Elixir's `Logger`.
//!
//! ```text
//! any thread --tracing event--> Forwarder: rate limit --> queue --> tank-logs, a thread --message--> Tank.Store.Logs
//! ```
//!
//! Of all crates warnings and errors; of ours also what an operator asks for first (`info`). Each place in the source may log
//! three times in half a minute for a store; the next one says how many it left out.
//!
//! The raft library warns of each message that is not answered, as when a member joins or is stopped. What that leads to,
//! such as a lost quorum, is told by lines of our own; so its warnings arrive as `debug`.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use once_cell::sync::OnceCell;
use rustler::{Atom, Encoder, Env, LocalPid, OwnedEnv};
use tank_engine::label;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

use crate::atoms;

const WINDOW: Duration = Duration::from_secs(30);
const PER_WINDOW: u32 = 3;

/// Events that may wait for the thread. More are dropped, so that logging never waits.
const QUEUE_MAX: usize = 1_000;

/// Our own crates, whose `info` is for operators.
const OURS: &str = "tank_";

/// Bytes of a text, at the most: raft's may hold whole commands.
const TEXT_MAX: usize = 1_000;

/// The process that gets them.
static RECEIVER: Mutex<Option<LocalPid>> = Mutex::new(None);
static QUEUE: OnceCell<Sender<Logged>> = OnceCell::new();

struct Logged {
    level: Level,
    target: &'static str,
    store: Option<Arc<str>>,
    text: String,
    left_out: u32,
}

/// Has the calling process sent `{:tank_log, level, store_id | nil, target, text, left_out}`.
#[rustler::nif]
fn receive_logs(env: Env<'_>) -> Atom {
    *RECEIVER.lock().unwrap_or_else(PoisonError::into_inner) = Some(env.pid());
    let _ = QUEUE.get_or_try_init(start);
    atoms::ok()
}

fn start() -> std::io::Result<Sender<Logged>> {
    let (sender, receiver) = bounded(QUEUE_MAX);
    std::thread::Builder::new().name("tank-logs".to_owned()).spawn(move || forward(&receiver))?;
    // There may be one already, of a library that was loaded before: then that one has the events.
    let _ = tracing::subscriber::set_global_default(Forwarder { queue: sender.clone(), windows: Mutex::default() });
    Ok(sender)
}

fn forward(queue: &Receiver<Logged>) {
    let mut env = OwnedEnv::new();
    for logged in queue {
        let receiver = *RECEIVER.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(receiver) = receiver else { continue };
        let _ = env.send_and_clear(&receiver, |env| {
            let store = logged.store.as_deref().map_or_else(|| atoms::nil().encode(env), |id| id.encode(env));
            (atoms::tank_log(), level(logged.level), store, logged.target, logged.text.as_str(), logged.left_out)
                .encode(env)
        });
    }
}

fn level(level: Level) -> Atom {
    match level {
        Level::ERROR => atoms::error(),
        Level::WARN => atoms::warning(),
        Level::INFO => atoms::info(),
        _ => atoms::debug(),
    }
}

/// How often a place has logged for a store.
struct Window {
    began: Instant,
    count: u32,
    left_out: u32,
}

/// Where something is logged, and for which store.
type Place = (Identifier, Option<Arc<str>>);

/// The raft library.
const RAFT: &str = "openraft";

struct Forwarder {
    queue: Sender<Logged>,
    windows: Mutex<HashMap<Place, Window>>,
}

impl Forwarder {
    /// How many were left out before this one; `None` if this one is, too.
    fn let_through(&self, place: Place) -> Option<u32> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let window = windows.entry(place).or_insert(Window { began: now, count: 0, left_out: 0 });
        if now.duration_since(window.began) >= WINDOW {
            (window.began, window.count) = (now, 0);
        }
        window.count = window.count.saturating_add(1);
        if window.count > PER_WINDOW {
            window.left_out = window.left_out.saturating_add(1);
            return None;
        }
        Some(std::mem::take(&mut window.left_out))
    }
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let level = *metadata.level();
    metadata.is_event() && (level <= Level::WARN || (level == Level::INFO && metadata.target().starts_with(OURS)))
}

impl Subscriber for Forwarder {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let store = label::current();
        let Some(left_out) = self.let_through((metadata.callsite(), store.clone())) else { return };
        let mut text = Text::default();
        event.record(&mut text);
        let (target, text) = (metadata.target(), text.into_string());
        let is_routine = *metadata.level() == Level::WARN && target.starts_with(RAFT);
        let level = if is_routine { Level::DEBUG } else { *metadata.level() };
        let logged = Logged { level, target, store, text, left_out };
        let _ = self.queue.try_send(logged);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// The message of an event, and its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn into_string(self) -> String {
        let mut text =
            if self.message.is_empty() { self.fields.trim_start().to_owned() } else { self.message + &self.fields };
        if text.len() > TEXT_MAX {
            let end = (0..=TEXT_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push_str("...");
        }
        text
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
