//! Work on the samples of one batch by several threads, with one outcome.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Does `work` on every item, with one thread per worker.
///
/// Threads take the next item when they are free, so which worker gets an item
/// depends on timing; the outcome does not, as long as `work` leaves nothing in
/// the worker that the next item sees. After a failure no new item is begun.
/// The error returned is the one of the first failing item: items are handed
/// out in order, so that one has always been begun.
pub(crate) fn for_each<W: Send, I: Send, E: Send>(
    workers: &mut [W],
    items: impl Iterator<Item = I> + Send,
    work: impl Fn(&mut W, I) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let queue = Mutex::new(items.enumerate());
    let failed = AtomicBool::new(false);
    let next = || {
        let mut queue = queue.lock().expect("no holder of this lock can panic");
        (!failed.load(Ordering::Relaxed)).then(|| queue.next()).flatten()
    };
    let run = |worker: &mut W| {
        while let Some((index, item)) = next() {
            if let Err(error) = work(worker, item) {
                failed.store(true, Ordering::Relaxed);
                return Some((index, error));
            }
        }
        None
    };
    let (first, others) = workers.split_first_mut().expect("at least one worker");
    let failures: Vec<_> = std::thread::scope(|scope| {
        let run = &run;
        let handles: Vec<_> =
            others.iter_mut().map(|worker| scope.spawn(move || run(worker))).collect();
        let own = run(first);
        let joined = handles.into_iter().filter_map(|handle| match handle.join() {
            Ok(failure) => failure,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        own.into_iter().chain(joined).collect()
    });
    match failures.into_iter().min_by_key(|(index, _)| *index) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_whatever_the_number_of_threads() {
        for threads in 1..5 {
            let mut out = vec![0; 100];
            let items = out.iter_mut().enumerate();
            let done: Result<(), ()> = for_each(&mut vec![(); threads], items, |(), (i, slot)| {
                *slot += i + 1;
                Ok(())
            });
            assert_eq!(done, Ok(()));
            assert_eq!(out, (1..=100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_failing_item_is_reported_whatever_the_timing() {
        for _ in 0..100 {
            let done =
                for_each(&mut [(); 4], 0..100, |(), i| if i % 10 == 7 { Err(i) } else { Ok(()) });
            assert_eq!(done, Err(7));
        }
    }
}
