//! What can a test order?
//!
//! One order a line; each is answered by one line, `ok ...` or `error ...`:
//!
//! ```text
//! set FROM TO KEY=VALUE ...   the rule of a link; what is not named has its default (see `Rule`)
//! clear                       all links pass frames on at once
//! stats                       what happened on each link so far
//! ```
//!
//! `FROM` and `TO` are numbers of ports, from 1. `TO` may be `*`: the port's outgoing link, which all that it sends
//! passes before the link to its destination. A rate usually belongs there, a delay and a loss to the single links.

use crate::link::Rule;

/// An order.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// The rule of the link between two ports; the outgoing link of `from` if `to` is `None`.
    Set {
        /// The sending port, from 0.
        from: usize,
        /// The receiving port, from 0.
        to: Option<usize>,
        /// The rule.
        rule: Rule,
    },
    /// Removes all rules.
    Clear,
    /// Asks for the counters.
    Stats,
}

/// Reads an order for a switch with so many ports; the error says what is wrong.
pub fn parse(line: &str, ports: usize) -> Result<Order, String> {
    let mut words = line.split_whitespace();
    match words.next() {
        Some("set") => {
            let from = port(words.next(), ports)?;
            let to = match words.next() {
                Some("*") => None,
                other => Some(port(other, ports)?),
            };
            Ok(Order::Set { from, to, rule: rule(words)? })
        }
        Some("clear") => Ok(Order::Clear),
        Some("stats") => Ok(Order::Stats),
        other => Err(format!("expected set, clear or stats, got {other:?}")),
    }
}

fn port(word: Option<&str>, ports: usize) -> Result<usize, String> {
    word.and_then(|word| word.parse().ok())
        .filter(|number| (1..=ports).contains(number))
        .map(|number: usize| number - 1)
        .ok_or_else(|| format!("expected a port from 1 to {ports}, got {word:?}"))
}

fn rule<'a>(words: impl Iterator<Item = &'a str>) -> Result<Rule, String> {
    let mut rule = Rule::default();
    for word in words {
        let wrong = || format!("expected KEY=VALUE, got {word:?}");
        let (key, value) = word.split_once('=').ok_or_else(wrong)?;
        let value: f64 = value.parse().map_err(|_| wrong())?;
        if !value.is_finite() || value < 0.0 {
            return Err(wrong());
        }
        match key {
            "rate_bits" => rule.rate_bits = value as u64,
            "queue_ms" => rule.queue_ns = nanoseconds(value),
            "delay_ms" => rule.delay_ns = nanoseconds(value),
            "jitter_ms" => rule.jitter_ns = nanoseconds(value),
            "loss" => rule.loss = value,
            "duplicate" => rule.duplicate = value,
            "block" => rule.block = value != 0.0,
            _ => return Err(format!("unknown key {key:?}")),
        }
    }
    Ok(rule)
}

fn nanoseconds(ms: f64) -> u64 {
    (ms * 1_000_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        let rule = Rule { rate_bits: 16_000_000, delay_ns: 30_500_000, loss: 0.02, ..Rule::default() };
        let order = parse("set 1 3 rate_bits=16000000 delay_ms=30.5 loss=0.02", 3);
        assert_eq!(order, Ok(Order::Set { from: 0, to: Some(2), rule }));
        let order = parse("set 2 * block=1 queue_ms=7 jitter_ms=1 duplicate=0.5", 3);
        let rule = Rule { block: true, queue_ns: 7_000_000, jitter_ns: 1_000_000, duplicate: 0.5, ..Rule::default() };
        assert_eq!(order, Ok(Order::Set { from: 1, to: None, rule }));
        assert_eq!(parse("clear", 3), Ok(Order::Clear));
        assert_eq!(parse("stats", 3), Ok(Order::Stats));
    }

    #[test]
    fn wrong_orders_are_refused_and_say_why() {
        for (line, why) in [
            ("", "expected set"),
            ("set 0 1", "port from 1 to 3"),
            ("set 1 4", "port from 1 to 3"),
            ("set 1 2 fast=1", "unknown key"),
            ("set 1 2 loss", "KEY=VALUE"),
            ("set 1 2 loss=-1", "KEY=VALUE"),
        ] {
            let error = parse(line, 3).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
