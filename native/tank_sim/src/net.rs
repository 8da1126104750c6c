//! A network between engines of one process, which can be cut link by link, and made slow.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tank_engine::engine::Engine;
use tank_engine::peers::{Channel, NotSent, Transport};

/// The network. Nodes are known by name; each has one engine at a time.
#[derive(Default)]
pub struct SimNet {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    engines: HashMap<String, Engine>,
    /// Directed links that lose every frame.
    cut: HashSet<(String, String)>,
    lossy: Option<Lossy>,
    /// The directed link whose frames wait, and those that do.
    held: Option<(String, String, Channel)>,
    waiting: Vec<Vec<u8>>,
    /// How many frames were sent from a node to another on a channel.
    sent: HashMap<(String, String, Channel), u64>,
    /// How long frames are on their way, and where they are meanwhile.
    slow: Option<(Duration, Sender<Delayed>)>,
    /// The frames of a node wait until then, and go this way.
    stalled: Option<(String, Instant, Sender<Delayed>)>,
}

/// A frame on its way.
struct Delayed {
    due: Instant,
    from: String,
    to: String,
    frame: Vec<u8>,
}

/// Loses one frame of `every` on a channel, as often as `left` says.
struct Lossy {
    channel: Channel,
    every: usize,
    left: usize,
    had: usize,
}

/// One node's way into the network.
pub struct SimTransport {
    net: Weak<SimNet>,
    node: String,
}

impl SimNet {
    /// A network without nodes.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The transport of the engine that will be attached as `node`.
    pub fn transport(self: &Arc<Self>, node: &str) -> Arc<SimTransport> {
        Arc::new(SimTransport { net: Arc::downgrade(self), node: node.to_owned() })
    }

    /// Lets frames for `node` reach `engine`.
    pub fn attach(&self, node: &str, engine: Engine) {
        self.lock().engines.insert(node.to_owned(), engine);
    }

    /// Takes a node away: frames to it are known not to arrive.
    pub fn detach(&self, node: &str) {
        self.lock().engines.remove(node);
    }

    /// Loses every frame from `from` to `to`, without a word.
    pub fn cut(&self, from: &str, to: &str) {
        self.lock().cut.insert((from.to_owned(), to.to_owned()));
    }

    /// Cuts `node` off from all others, both ways.
    pub fn isolate(&self, node: &str) {
        let others: Vec<String> = self.lock().engines.keys().filter(|other| *other != node).cloned().collect();
        for other in others {
            self.cut(node, &other);
            self.cut(&other, node);
        }
    }

    /// Loses one of `every` frames of a channel, without a word, and `times` in all. Without an end, a
    /// frame that is sent again in the same rhythm would be lost each time.
    pub fn lose_one_of(&self, every: usize, times: usize, channel: Channel) {
        self.lock().lossy = Some(Lossy { channel, every, left: times, had: 0 });
    }

    /// Lets every frame take so long from now on.
    pub fn delay(self: &Arc<Self>, time: Duration) {
        self.lock().slow = Some((time, self.deliver_in_order()));
    }

    fn deliver_in_order(self: &Arc<Self>) -> Sender<Delayed> {
        let (sender, delayed) = mpsc::channel::<Delayed>();
        let net = Arc::downgrade(self);
        std::thread::spawn(move || {
            for frame in delayed {
                std::thread::sleep(frame.due.saturating_duration_since(Instant::now()));
                let Some(net) = net.upgrade() else { return };
                let engine = net.lock().engines.get(&frame.to).cloned();
                if let Some(engine) = engine {
                    engine.deliver(&frame.from, &frame.frame);
                }
            }
        });
        sender
    }

    /// What `from` sends from now on waits for `time`, and arrives in order then, as behind a segment that TCP sends
    /// again. On a network with a [delay](Self::delay).
    pub fn stall(self: &Arc<Self>, from: &str, time: Duration) {
        self.lock().stalled = Some((from.to_owned(), Instant::now() + time, self.deliver_in_order()));
    }

    /// How many frames `from` has sent to `to` on a channel, lost ones included.
    pub fn sent(&self, from: &str, to: &str, channel: Channel) -> u64 {
        self.lock().sent.get(&(from.to_owned(), to.to_owned(), channel)).copied().unwrap_or(0)
    }

    /// Lets frames from `from` to `to` on a channel wait until they are released.
    pub fn hold(&self, from: &str, to: &str, channel: Channel) {
        self.lock().held = Some((from.to_owned(), to.to_owned(), channel));
    }

    /// How many frames wait.
    pub fn held(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Delivers the frames that wait, and holds no more.
    pub fn release(&self) {
        let (link, frames, engine) = {
            let mut state = self.lock();
            let Some(link) = state.held.take() else { return };
            let frames = std::mem::take(&mut state.waiting);
            let engine = state.engines.get(&link.1).cloned();
            (link, frames, engine)
        };
        for frame in frames {
            if let Some(engine) = &engine {
                engine.deliver(&link.0, &frame);
            }
        }
    }

    /// Mends every link. Slow ones stay slow.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.cut.clear();
        state.lossy = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn loses(&mut self, channel: Channel) -> bool {
        let Some(lossy) = self.lossy.as_mut().filter(|lossy| lossy.channel == channel && lossy.left > 0) else {
            return false;
        };
        lossy.had += 1;
        let loses = lossy.had.is_multiple_of(lossy.every);
        lossy.left -= usize::from(loses);
        loses
    }
}

impl Transport for SimTransport {
    fn send(&self, node: &str, channel: Channel, frame: Vec<u8>) -> Result<(), NotSent> {
        let net = self.net.upgrade().ok_or(NotSent::Disconnected)?;
        let engine = {
            let mut state = net.lock();
            *state.sent.entry((self.node.clone(), node.to_owned(), channel)).or_default() += 1;
            if state.loses(channel) || state.cut.contains(&(self.node.clone(), node.to_owned())) {
                return Ok(());
            }
            if state.held.as_ref().is_some_and(|(from, to, on)| (from, to.as_str(), *on) == (&self.node, node, channel))
            {
                state.waiting.push(frame);
                return Ok(());
            }
            if let Some((time, delayed)) = &state.slow {
                let (from, to, now) = (self.node.clone(), node.to_owned(), Instant::now());
                let stalled = state.stalled.as_ref().filter(|(node, ..)| *node == from);
                let (due, delayed) = stalled.map_or((now, delayed), |(_, until, way)| (now.max(*until), way));
                let due = due + *time;
                return delayed.send(Delayed { due, from, to, frame }).map_err(|_| NotSent::Disconnected);
            }
            state.engines.get(node).cloned().ok_or(NotSent::Disconnected)?
        };
        engine.deliver(&self.node, &frame);
        Ok(())
    }
}
