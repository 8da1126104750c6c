//! openraft's way to tasks, time and randomness: tokio, with two differences.
//!
//! - How long a call to another member may take is for the network to say ([`crate::peers`]): it knows
//!   how many bytes there are to send and whether any of them move. openraft takes the heartbeat
//!   interval, or the election timeout, for the deadline of a call and drops what comes later, also
//!   where the way there and back takes longer than that. So its deadlines have a floor here.
//! - Tasks and randomness come from the member's environment ([`crate::environment`]), which may be
//!   simulated.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use openraft::impls::TokioRuntime;
use openraft::{AsyncRuntime, OptionalSend};
use rand_core::{Rng, TryRng};
use tokio::runtime::Handle;

use crate::environment::{self, Environment};

/// The shortest deadline that openraft may give a call of its own. Nothing but calls has one: sleeping
/// is not concerned. Longer than any call goes on that the network has not given up.
const CALL_TIMEOUT_MIN: Duration = Duration::from_secs(30);

/// The runtime of the raft core.
#[derive(Debug)]
pub struct RaftRuntime(TokioRuntime);

/// Where the raft core's randomness comes from.
#[derive(Debug)]
pub struct RaftRng(Source);

#[derive(Debug)]
enum Source {
    Thread(<TokioRuntime as AsyncRuntime>::ThreadLocalRng),
    Simulated(Environment),
}

impl AsyncRuntime for RaftRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = RaftRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        environment::spawn(&Handle::current(), future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration.max(CALL_TIMEOUT_MIN), future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        let simulated = environment::current().map(Source::Simulated);
        RaftRng(simulated.unwrap_or_else(|| Source::Thread(TokioRuntime::thread_rng())))
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}

impl TryRng for RaftRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        match &mut self.0 {
            Source::Thread(rng) => Ok(rng.next_u32()),
            // The upper half: all of its bits are as good.
            Source::Simulated(environment) => Ok((environment.random() >> 32) as u32),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        match &mut self.0 {
            Source::Thread(rng) => Ok(rng.next_u64()),
            Source::Simulated(environment) => Ok(environment.random()),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(size_of::<u64>()) {
            let random = self.try_next_u64()?.to_le_bytes();
            chunk.iter_mut().zip(random).for_each(|(byte, random)| *byte = random);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::task::AbortHandle;

    use super::*;
    use crate::environment::World;
    use crate::options::Timing;

    #[test]
    fn a_call_that_takes_longer_than_a_heartbeat_interval_is_not_ended() {
        let interval = Duration::from_millis(Timing::default().heartbeat_interval_ms);
        let call = async { RaftRuntime::sleep(interval * 4).await };
        let answered = RaftRuntime::new(1).block_on(async { RaftRuntime::timeout(interval, call).await });
        assert!(answered.is_ok(), "{answered:?}");
    }

    #[test]
    fn a_deadline_that_is_longer_than_the_floor_stays_and_one_at_an_instant_too() {
        RaftRuntime::new(1).block_on(async {
            let longer = RaftRuntime::timeout(CALL_TIMEOUT_MIN * 2, async {});
            assert!(longer.await.is_ok());
            let now = <<RaftRuntime as AsyncRuntime>::Instant as openraft::Instant>::now();
            let ended = RaftRuntime::timeout_at(now + Duration::from_millis(5), std::future::pending::<()>());
            assert!(ended.await.is_err());
        });
    }

    /// Counts, and calls it random.
    #[derive(Default)]
    struct Counting {
        next: AtomicU64,
        tasks: Mutex<Vec<AbortHandle>>,
    }

    impl World for Counting {
        fn wall_ms(&self) -> u64 {
            7
        }

        fn random(&self) -> u64 {
            self.next.fetch_add(1 << 32, Ordering::Relaxed)
        }

        fn spawned(&self, task: AbortHandle) {
            self.tasks.lock().unwrap().push(task);
        }
    }

    #[test]
    fn tasks_of_a_simulated_member_share_its_world_and_others_do_not() {
        let world = std::sync::Arc::new(Counting::default());
        let environment = Environment::new(std::sync::Arc::clone(&world) as _);
        RaftRuntime::new(1).block_on(async {
            assert!(!environment::is_simulated());
            let seen = environment.run(async {
                let inner = RaftRuntime::spawn(async {
                    RaftRuntime::spawn(async { (environment::wall_ms(), RaftRuntime::thread_rng().next_u32()) }).await
                });
                (RaftRuntime::thread_rng().next_u32(), inner.await.unwrap().unwrap())
            });
            assert_eq!(seen.await, (0, (7, 1)));
            assert!(RaftRuntime::spawn(async { environment::wall_ms() }).await.unwrap() > 7);
        });
        assert_eq!(world.tasks.lock().unwrap().len(), 2);
    }
}
