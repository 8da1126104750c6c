//! What is wrong with a store while it goes on: what an operator has to know, and do.
//!
//! An alarm is raised by what finds the cause, is told once to the listener (which logs it as an error) and is in the
//! store's status until what raised it finds the cause gone and clears it. Alarms are kept in memory: what opens the
//! store again raises them again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use crate::sync::lock;
use crate::types::MemberId;

/// A field of an alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// An id, an index or a count.
    Number(u64),
    /// A text, such as the name of a node.
    Text(String),
}

impl From<u64> for Detail {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Detail {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What is wrong: an atom in Elixir, `snake_case`.
    pub name: &'static str,
    /// The member that it is about, if that is not the store as a whole.
    pub member: Option<MemberId>,
    /// What happened and what to do, for people.
    pub message: String,
    /// Figures that tell more.
    pub details: Vec<(&'static str, Detail)>,
}

impl Alarm {
    /// An alarm about the store as a whole.
    pub fn new(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, member: None, message: message.into(), details: Vec::new() }
    }

    /// Makes it one about a member. There may be one alarm of a name for each member.
    #[must_use]
    pub fn about(mut self, member: MemberId) -> Self {
        self.member = Some(member);
        self
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, field: &'static str, value: impl Into<Detail>) -> Self {
        self.details.push((field, value.into()));
        self
    }
}

/// What became of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It was raised.
    Raised,
    /// Its cause is gone.
    Cleared,
}

/// Is told of each alarm that is raised or cleared, on the thread that does so. It must not block, nor raise or clear an alarm.
pub type Listener = Box<dyn Fn(Turn, &Alarm) + Send + Sync>;

type Key = (&'static str, Option<MemberId>);

#[derive(Default)]
struct Raised {
    alarms: BTreeMap<Key, Alarm>,
    listener: Option<Listener>,
}

impl Raised {
    fn tell(&self, turn: Turn, alarm: &Alarm) {
        if let Some(listener) = &self.listener {
            listener(turn, alarm);
        }
    }
}

/// The alarms of an open store. Raise and clear them on threads of the engine, never on one of the caller's.
#[derive(Default)]
pub struct Alarms(Mutex<Raised>);

impl Alarms {
    /// Raises an alarm. One of the same name about the same member is replaced; its listener is not told again.
    pub fn raise(&self, alarm: Alarm) {
        let mut raised = self.raised();
        let key = (alarm.name, alarm.member);
        if !raised.alarms.contains_key(&key) {
            raised.tell(Turn::Raised, &alarm);
        }
        raised.alarms.insert(key, alarm);
    }

    /// Clears the alarm `name` about `member`, if it was raised.
    pub fn clear(&self, name: &'static str, member: Option<MemberId>) {
        let mut raised = self.raised();
        if let Some(alarm) = raised.alarms.remove(&(name, member)) {
            raised.tell(Turn::Cleared, &alarm);
        }
    }

    /// Clears the alarms `name` about all members but those that `keeps` names.
    pub fn retain(&self, name: &'static str, keeps: impl Fn(MemberId) -> bool) {
        let members = self.list().into_iter().filter(|alarm| alarm.name == name).filter_map(|alarm| alarm.member);
        members.filter(|member| !keeps(*member)).for_each(|member| self.clear(name, Some(member)));
    }

    /// Whether the alarm `name` about `member` is raised.
    pub fn is_raised(&self, name: &'static str, member: Option<MemberId>) -> bool {
        self.raised().alarms.contains_key(&(name, member))
    }

    /// All that are raised, in the order of their names.
    pub fn list(&self) -> Vec<Alarm> {
        self.raised().alarms.values().cloned().collect()
    }

    /// Has `listener` told of all that are raised, and of all that will be raised or cleared.
    pub fn listen(&self, listener: Listener) {
        let mut raised = self.raised();
        raised.alarms.values().for_each(|alarm| listener(Turn::Raised, alarm));
        raised.listener = Some(listener);
    }

    fn raised(&self) -> MutexGuard<'_, Raised> {
        lock(&self.0)
    }
}

impl std::fmt::Debug for Alarms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    type Told = Arc<Mutex<Vec<(Turn, &'static str, Option<MemberId>)>>>;

    fn listener(told: &Told) -> Listener {
        let told = Arc::clone(told);
        Box::new(move |turn, alarm| lock(&told).push((turn, alarm.name, alarm.member)))
    }

    #[test]
    fn the_listener_is_told_once_of_an_alarm_and_of_its_end() {
        let (alarms, told) = (Alarms::default(), Told::default());
        alarms.raise(Alarm::new("early", "before anyone listened"));
        alarms.listen(listener(&told));
        alarms.raise(Alarm::new("differs", "first").about(7).with("index", 3));
        alarms.raise(Alarm::new("differs", "again").about(7).with("index", 4));
        assert_eq!(alarms.list().len(), 2);
        assert_eq!(alarms.list().first().unwrap().message, "again", "the newest figures count");
        alarms.clear("differs", None);
        alarms.clear("differs", Some(7));
        alarms.clear("differs", Some(7));
        let expected = vec![
            (Turn::Raised, "early", None),
            (Turn::Raised, "differs", Some(7)),
            (Turn::Cleared, "differs", Some(7)),
        ];
        assert_eq!(*lock(&told), expected);
    }

    #[test]
    fn alarms_about_members_that_are_gone_are_cleared() {
        let alarms = Alarms::default();
        for member in 1..=3 {
            alarms.raise(Alarm::new("differs", "it differs").about(member));
        }
        alarms.retain("differs", |member| member == 2);
        assert!(alarms.is_raised("differs", Some(2)) && alarms.list().len() == 1);
    }
}
