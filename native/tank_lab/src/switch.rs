//! To which ports does a frame go, and which frames are due?
//!
//! ```text
//! port 1 --outgoing link 1--+--link 1>2--> port 2
//!                           +--link 1>3--> port 3
//! ```

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    fmt::Write,
};

use crate::{
    control::Order,
    link::{Link, Passage, Random},
};

// An Ethernet frame begins with the addresses of the receiver and of the sender.
const ADDRESS_BYTES: usize = 6;

/// A frame at its destination's port.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    at_ns: u64,
    // Equal times: in the order of sending.
    sequence: u64,
    /// The port that it leaves by.
    pub port: usize,
    /// What was received, from `skip` on an Ethernet frame.
    pub frame: Vec<u8>,
}

/// The links, what was learnt of who is where, and the frames under way.
pub struct Switch {
    outgoing: Vec<Counted>,
    // By sending and receiving port.
    links: Vec<Vec<Counted>>,
    places: HashMap<[u8; ADDRESS_BYTES], usize>,
    under_way: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    random: Random,
    // What precedes the Ethernet frame in what is received.
    skip: usize,
}

#[derive(Default)]
struct Counted {
    link: Link,
    frames: u64,
    bytes: u64,
    lost: u64,
    full: u64,
    blocked: u64,
}

impl Counted {
    fn pass(&mut self, now_ns: u64, bytes: usize, random: &mut Random) -> Option<(u64, u8)> {
        match self.link.pass(now_ns, bytes, random) {
            Passage::Arrives { at_ns, copies } => {
                self.frames += 1;
                self.bytes += bytes as u64;
                return Some((at_ns, copies));
            }
            Passage::Lost => self.lost += 1,
            Passage::Full => self.full += 1,
            Passage::Blocked => self.blocked += 1,
        }
        None
    }
}

impl Switch {
    /// A switch with so many ports, whose frames have `skip` bytes before the Ethernet header.
    pub fn new(ports: usize, skip: usize, seed: u64) -> Self {
        let counted = |_| Counted::default();
        Self {
            outgoing: (0..ports).map(counted).collect(),
            links: (0..ports).map(|_| (0..ports).map(counted).collect()).collect(),
            places: HashMap::new(),
            under_way: BinaryHeap::new(),
            sequence: 0,
            random: Random::new(seed),
            skip,
        }
    }

    /// Carries an order out, and answers it.
    pub fn obey(&mut self, order: Order) -> String {
        match order {
            Order::Set { from, to, rule } => {
                let link = match to {
                    None => self.outgoing.get_mut(from),
                    Some(to) => self.links.get_mut(from).and_then(|links| links.get_mut(to)),
                };
                if let Some(counted) = link {
                    counted.link.set(rule);
                }
                "ok".to_owned()
            }
            Order::Clear => {
                for counted in self.outgoing.iter_mut().chain(self.links.iter_mut().flatten()) {
                    counted.link = Link::default();
                }
                "ok".to_owned()
            }
            Order::Stats => format!("ok{}", self.stats()),
        }
    }

    /// Takes a frame that came in at a port.
    pub fn accept(&mut self, from: usize, frame: &[u8], now_ns: u64) {
        let addresses = frame.get(self.skip..).and_then(|ethernet| ethernet.first_chunk::<{ 2 * ADDRESS_BYTES }>());
        let Some([r0, r1, r2, r3, r4, r5, s0, s1, s2, s3, s4, s5]) = addresses.copied() else {
            return;
        };
        self.places.insert([s0, s1, s2, s3, s4, s5], from);
        let place = self.places.get(&[r0, r1, r2, r3, r4, r5]).copied();
        let bytes = frame.len() - self.skip;
        let Some((sent_ns, copies)) =
            self.outgoing.get_mut(from).and_then(|counted| counted.pass(now_ns, bytes, &mut self.random))
        else {
            return;
        };
        // Nobody has answered from there yet, or it is for all: to all other ports.
        for to in (0..self.links.len()).filter(|to| *to != from && place.is_none_or(|place| place == *to)) {
            for _copy in 0..copies {
                self.send(from, to, frame, sent_ns);
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, frame: &[u8], sent_ns: u64) {
        let link = self.links.get_mut(from).and_then(|links| links.get_mut(to));
        let bytes = frame.len() - self.skip;
        let Some((at_ns, copies)) = link.and_then(|counted| counted.pass(sent_ns, bytes, &mut self.random)) else {
            return;
        };
        for _copy in 0..copies {
            self.sequence += 1;
            self.under_way.push(Reverse(Due { at_ns, sequence: self.sequence, port: to, frame: frame.to_vec() }));
        }
    }

    /// When the next frame is due.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.under_way.peek().map(|Reverse(due)| due.at_ns)
    }

    /// The next frame that is due at `now_ns`.
    pub fn take_due(&mut self, now_ns: u64) -> Option<Due> {
        if self.next_due_ns()? > now_ns {
            return None;
        }
        self.under_way.pop().map(|Reverse(due)| due)
    }

    // ` 1>2 frames=N bytes=N lost=N full=N blocked=N` for each link; `1>*` is an outgoing one.
    fn stats(&self) -> String {
        let mut text = String::new();
        for (from, (outgoing, links)) in self.outgoing.iter().zip(&self.links).enumerate() {
            add_stats(&mut text, from, "*", outgoing);
            for (to, counted) in links.iter().enumerate().filter(|(to, _)| *to != from) {
                add_stats(&mut text, from, &(to + 1).to_string(), counted);
            }
        }
        text
    }
}

fn add_stats(text: &mut String, from: usize, to: &str, counted: &Counted) {
    let Counted { frames, bytes, lost, full, blocked, .. } = counted;
    let from = from + 1;
    // Writing to a string cannot fail.
    let _ = write!(text, " {from}>{to} frames={frames} bytes={bytes} lost={lost} full={full} blocked={blocked}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::parse;

    const MS: u64 = 1_000_000;

    // A frame from one station to another, after two bytes to skip.
    fn frame(from: u8, to: u8) -> Vec<u8> {
        [&[0, 0][..], &[to; 6], &[from; 6], b"payload"].concat()
    }

    fn arrived(switch: &mut Switch, now_ns: u64) -> Vec<(usize, Vec<u8>)> {
        std::iter::from_fn(|| switch.take_due(now_ns)).map(|due| (due.port, due.frame)).collect()
    }

    fn obey(switch: &mut Switch, line: &str) -> String {
        switch.obey(parse(line, 3).unwrap())
    }

    #[test]
    fn a_frame_goes_to_all_until_its_receiver_is_known() {
        let mut switch = Switch::new(3, 2, 1);
        switch.accept(0, &frame(0xA, 0xB), 0);
        assert_eq!(arrived(&mut switch, 0), [(1, frame(0xA, 0xB)), (2, frame(0xA, 0xB))]);
        switch.accept(1, &frame(0xB, 0xA), 0);
        assert_eq!(arrived(&mut switch, 0), [(0, frame(0xB, 0xA))]);
        switch.accept(0, &frame(0xA, 0xB), 0);
        assert_eq!(arrived(&mut switch, 0), [(1, frame(0xA, 0xB))]);
        switch.accept(0, &frame(0xA, 0xFF), 0);
        assert_eq!(arrived(&mut switch, 0).len(), 2);
    }

    #[test]
    fn the_outgoing_link_is_shared_and_each_link_has_its_own_delay() {
        let mut switch = Switch::new(3, 2, 1);
        assert_eq!(obey(&mut switch, "set 1 * rate_bits=152000"), "ok");
        assert_eq!(obey(&mut switch, "set 1 2 delay_ms=30"), "ok");
        switch.accept(1, &frame(0xB, 0xA), 0);
        switch.accept(2, &frame(0xC, 0xA), 0);
        arrived(&mut switch, 0);
        // 19 bytes take 1 ms.
        switch.accept(0, &frame(0xA, 0xB), 0);
        switch.accept(0, &frame(0xA, 0xC), 0);
        assert_eq!(switch.next_due_ns(), Some(2 * MS));
        assert_eq!(arrived(&mut switch, 2 * MS), [(2, frame(0xA, 0xC))]);
        assert_eq!(arrived(&mut switch, 31 * MS - 1), []);
        assert_eq!(arrived(&mut switch, 31 * MS), [(1, frame(0xA, 0xB))]);
    }

    #[test]
    fn what_is_blocked_is_counted_and_a_clear_mends_it() {
        let mut switch = Switch::new(3, 2, 1);
        switch.accept(1, &frame(0xB, 0xA), 0);
        arrived(&mut switch, 0);
        obey(&mut switch, "set 1 2 block=1");
        switch.accept(0, &frame(0xA, 0xB), 0);
        assert_eq!(arrived(&mut switch, 0), []);
        assert!(obey(&mut switch, "stats").contains(" 1>2 frames=0 bytes=0 lost=0 full=0 blocked=1"));
        assert_eq!(obey(&mut switch, "clear"), "ok");
        switch.accept(0, &frame(0xA, 0xB), 0);
        assert_eq!(arrived(&mut switch, 0).len(), 1);
    }

    #[test]
    fn what_is_no_frame_is_dropped() {
        let mut switch = Switch::new(3, 2, 1);
        switch.accept(0, &[0; 13], 0);
        assert_eq!(switch.next_due_ns(), None);
    }
}
