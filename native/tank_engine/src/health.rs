//! Whether a store still works, and what is wrong with it. It fails once and for good, and its supervisor opens it again;
//! what it can go on with is an alarm.

use std::any::Any;
use std::sync::OnceLock;

use crate::alarms::Alarms;
use crate::error::EngineError;

/// Told when a store fails, with the reason.
pub type OnFailure = Box<dyn Fn(&EngineError) + Send + Sync>;

/// Gives the cause of a failure, when there is a better one than the error that was met.
pub type FindCause = Box<dyn Fn() -> Option<EngineError> + Send + Sync>;

/// A store's health.
pub struct Health {
    failure: OnceLock<EngineError>,
    alarms: Alarms,
    find_cause: FindCause,
    on_failure: OnFailure,
}

impl Health {
    /// A healthy store. `on_failure` is called at most once, on the thread that failed.
    pub fn new(on_failure: OnFailure) -> Self {
        Self::with_cause(Box::new(|| None), on_failure)
    }

    /// As [`Health::new`]. `find_cause` is called at each failure, on the thread that failed.
    pub fn with_cause(find_cause: FindCause, on_failure: OnFailure) -> Self {
        Self { failure: OnceLock::new(), alarms: Alarms::default(), find_cause, on_failure }
    }

    /// What is wrong with the store while it goes on.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// `Ok` while the store works.
    ///
    /// # Errors
    /// What made it fail.
    pub fn check(&self) -> Result<(), EngineError> {
        self.failure.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Marks the store as failed. Only the first reason counts.
    pub fn fail(&self, error: EngineError) {
        if self.failure.get().is_some() {
            return;
        }
        let error = (self.find_cause)().unwrap_or(error);
        if self.failure.set(error).is_ok()
            && let Some(error) = self.failure.get()
        {
            (self.on_failure)(error);
        }
    }

    /// Marks the store as failed by a panic of `who`.
    pub fn panicked(&self, who: &str, panic: &(dyn Any + Send)) {
        self.fail(EngineError::Failed(format!("panic in {who}: {}", panic_text(panic))));
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("failure", &self.failure).field("alarms", &self.alarms).finish_non_exhaustive()
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
