//! The network between the members, in virtual time.
//!
//! ```text
//! engine --send--> link (a queue of bytes, then the way) --> heap of deliveries --a task--> engine
//! ```
//!
//! Each direction between two nodes is a link with a bandwidth, a latency and weather of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tank_engine::engine::Engine;
use tank_engine::environment::Environment;
use tank_engine::peers::{Channel, NotSent, Transport};
use tank_sim::Rng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::trace::{Trace, hash};

/// What is on its way between two nodes in one direction at the most, in bytes: then the connection takes
/// no more.
const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// How one direction between two nodes is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub latency: Duration,
    pub jitter: Duration,
    pub bytes_per_s: u64,
    /// Of a thousand frames, so many are lost, come twice, come out of order, or come much later.
    pub lost: usize,
    pub twice: usize,
    pub disordered: usize,
    pub late: usize,
    /// So many are sent again a round trip later, or several, and those behind them wait: so does TCP what it loses.
    pub resent: usize,
    /// How much later at the most.
    pub late_max: Duration,
    /// All are lost.
    pub cut: bool,
}

impl Weather {
    /// A network of one building.
    pub fn calm() -> Self {
        Self {
            latency: Duration::from_micros(200),
            jitter: Duration::from_micros(300),
            bytes_per_s: 125_000_000,
            lost: 0,
            twice: 0,
            disordered: 0,
            late: 0,
            resent: 0,
            late_max: Duration::from_secs(60),
            cut: false,
        }
    }
}

/// The network. Clones are the same.
#[derive(Clone)]
pub struct Links(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    /// A delivery comes earlier than all others.
    earlier: Notify,
    trace: Trace,
}

struct Inner {
    rng: Rng,
    fair: Weather,
    links: BTreeMap<(usize, usize), Link>,
    /// Those that run.
    nodes: BTreeMap<usize, (Engine, Environment)>,
    /// Those that are known not to run.
    gone: BTreeMap<usize, Instant>,
    deliveries: BinaryHeap<Reverse<Delivery>>,
    sent: u64,
    numbered: u64,
}

struct Link {
    weather: Weather,
    /// When the last byte that was handed over has left.
    busy_until: Instant,
    /// When the last frame arrives that is in order.
    last: Instant,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delivery {
    at: Instant,
    number: u64,
    from: usize,
    to: usize,
    channel: u8,
    frame: Arc<Vec<u8>>,
}

/// One node's way into the network.
struct Way {
    links: Links,
    from: usize,
}

impl Links {
    pub fn new(seed: u64, trace: Trace) -> Self {
        let inner = Inner {
            rng: Rng::new(seed),
            fair: Weather::calm(),
            links: BTreeMap::new(),
            nodes: BTreeMap::new(),
            gone: BTreeMap::new(),
            deliveries: BinaryHeap::new(),
            sent: 0,
            numbered: 0,
        };
        Self(Arc::new(Shared { inner: Mutex::new(inner), earlier: Notify::new(), trace }))
    }

    /// Delivers, until the run is over.
    pub async fn run(self) {
        loop {
            let next = self.0.inner.lock().unwrap().deliveries.peek().map(|Reverse(first)| first.at);
            let Some(next) = next else {
                self.0.earlier.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = self.0.earlier.notified() => {}
                () = sleep_until(next) => self.deliver_due(),
            }
        }
    }

    fn deliver_due(&self) {
        let now = Instant::now();
        loop {
            let (delivery, target) = {
                let mut inner = self.0.inner.lock().unwrap();
                if inner.deliveries.peek().is_none_or(|Reverse(first)| first.at > now) {
                    return;
                }
                let Some(Reverse(delivery)) = inner.deliveries.pop() else { return };
                let target = inner.nodes.get(&delivery.to).cloned();
                (delivery, target)
            };
            let Delivery { from, to, channel, frame, .. } = delivery;
            let Some((engine, environment)) = target else { continue };
            self.0.trace.note(format_args!("{from}>{to} {channel} {} {:x}", frame.len(), hash(0, &frame)));
            environment.enter(|| engine.deliver(&name(from), &frame));
        }
    }

    /// The transport of the engine that is to run on `node`.
    pub fn transport(&self, node: usize) -> Arc<dyn Transport> {
        Arc::new(Way { links: self.clone(), from: node })
    }

    /// Frames for `node` reach `engine` from now on.
    pub fn attach(&self, node: usize, engine: Engine, environment: Environment) {
        let mut inner = self.0.inner.lock().unwrap();
        inner.gone.remove(&node);
        inner.nodes.insert(node, (engine, environment));
    }

    /// Frames for `node` reach nobody; others know of it at `known`.
    pub fn detach(&self, node: usize, known: Instant) {
        let mut inner = self.0.inner.lock().unwrap();
        inner.nodes.remove(&node);
        inner.gone.insert(node, known);
    }

    /// The engines that run on other nodes than `node`.
    pub fn others(&self, node: usize) -> Vec<(Engine, Environment)> {
        let inner = self.0.inner.lock().unwrap();
        inner.nodes.iter().filter(|(other, _)| **other != node).map(|(_, running)| running.clone()).collect()
    }

    /// Has links be so, unless somebody says something else.
    pub fn fair(&self, weather: Weather) {
        self.0.inner.lock().unwrap().fair = weather;
    }

    /// Changes the weather of a direction.
    pub fn change(&self, from: usize, to: usize, change: impl FnOnce(&mut Weather)) {
        let mut inner = self.0.inner.lock().unwrap();
        change(&mut inner.link(from, to).weather);
    }

    /// All links are as they were at first.
    pub fn heal(&self) {
        let mut inner = self.0.inner.lock().unwrap();
        let fair = inner.fair;
        inner.links.values_mut().for_each(|link| link.weather = fair);
    }

    /// How many frames were sent.
    pub fn sent(&self) -> u64 {
        self.0.inner.lock().unwrap().sent
    }
}

impl Inner {
    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let (weather, now) = (self.fair, Instant::now());
        self.links.entry((from, to)).or_insert(Link { weather, busy_until: now, last: now })
    }

    fn chance(&mut self, of_a_thousand: usize) -> bool {
        of_a_thousand > 0 && self.rng.below(1_000) < of_a_thousand
    }

    fn random(&mut self, below: Duration) -> Duration {
        Duration::from_micros(self.rng.below(usize::try_from(below.as_micros()).unwrap()) as u64)
    }

    fn send(&mut self, from: usize, to: usize, channel: u8, frame: Vec<u8>) -> Result<(), NotSent> {
        let now = Instant::now();
        if self.gone.get(&to).is_some_and(|known| *known <= now) {
            return Err(NotSent::Disconnected);
        }
        self.sent += 1;
        let weather = self.link(from, to).weather;
        let on_the_way = Duration::from_nanos(frame.len() as u64 * 1_000_000_000 / weather.bytes_per_s);
        let backlog = Duration::from_nanos(BACKLOG_BYTES_MAX as u64 * 1_000_000_000 / weather.bytes_per_s);
        let link = self.link(from, to);
        if link.busy_until.saturating_duration_since(now) > backlog {
            return Err(NotSent::Busy);
        }
        link.busy_until = link.busy_until.max(now) + on_the_way;
        let left = link.busy_until;
        if weather.cut || self.chance(weather.lost) {
            return Ok(());
        }
        let frame = Arc::new(frame);
        let copies = 1 + usize::from(self.chance(weather.twice));
        for _ in 0..copies {
            let mut at = left + weather.latency + self.random(weather.jitter);
            if self.chance(weather.late) {
                at += self.random(weather.late_max);
            } else if self.chance(weather.disordered) {
                at += self.random(weather.latency * 10 + Duration::from_millis(20));
            } else {
                let mut again_after = weather.latency * 2;
                while self.chance(weather.resent) {
                    at += again_after;
                    again_after *= 2;
                }
                let link = self.link(from, to);
                at = at.max(link.last);
                link.last = at;
            }
            self.numbered += 1;
            let number = self.numbered;
            self.deliveries.push(Reverse(Delivery { at, number, from, to, channel, frame: Arc::clone(&frame) }));
        }
        Ok(())
    }
}

impl Transport for Way {
    fn send(&self, node: &str, channel: Channel, frame: Vec<u8>) -> Result<(), NotSent> {
        let to = number(node);
        let channel = match channel {
            Channel::Control => 0,
            Channel::Data => 1,
        };
        let mut inner = self.links.0.inner.lock().unwrap();
        let first = inner.deliveries.peek().map(|Reverse(first)| first.at);
        let sent = inner.send(self.from, to, channel, frame);
        let earlier = inner.deliveries.peek().map(|Reverse(first)| first.at) != first;
        drop(inner);
        if earlier {
            self.links.0.earlier.notify_one();
        }
        sent
    }
}

/// A node's name.
pub fn name(node: usize) -> String {
    format!("n{node}")
}

fn number(name: &str) -> usize {
    name.trim_start_matches('n').parse().unwrap()
}
