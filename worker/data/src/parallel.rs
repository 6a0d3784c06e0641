//! Work by several threads with one outcome: on the samples of a batch, or on a stream in its order.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

/// Results that a thread of [`in_order`] may have ready; more would only take memory.
const AHEAD: usize = 4;

/// As many threads as asked for; 0: one per core.
pub(crate) fn thread_count(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        asked => asked,
    }
}

/// Does `work` on every item, with one thread per worker, and hands the results to `take` in the order
/// of the items.
///
/// Worker `w` of `n` has the items `w`, `w + n`, `w + 2n`, … and a short queue of results, which are taken
/// in turn: neither order nor memory depends on timing. Ends with the first error of `take`.
pub(crate) fn in_order<W: Send, I: Copy + Sync, T: Send, E>(
    workers: &mut [W],
    items: &[I],
    work: impl Fn(&mut W, I) -> T + Sync,
    mut take: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let count = workers.len();
    let work = &work;
    std::thread::scope(|scope| {
        let mut queues: Vec<Receiver<T>> = Vec::with_capacity(count);
        for (first, worker) in workers.iter_mut().enumerate() {
            let (done, queue) = sync_channel(AHEAD);
            queues.push(queue);
            scope.spawn(move || {
                let own = items.iter().skip(first).step_by(count);
                // A queue without its other end means that taking has failed.
                own.map(|item| work(worker, *item)).all(|result| done.send(result).is_ok())
            });
        }
        for turn in 0..items.len() {
            match queues[turn % count].recv() {
                Ok(result) => take(result)?,
                // That thread panicked; the scope passes it on.
                Err(_) => break,
            }
        }
        Ok(())
    })
}

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

    #[test]
    fn results_come_in_the_order_of_the_items_whatever_the_number_of_threads() {
        let items: Vec<u32> = (0..100).collect();
        for threads in 1..5 {
            let mut results = Vec::new();
            let done: Result<(), ()> = in_order(
                &mut vec![(); threads],
                &items,
                |(), item| item * 2,
                |result| {
                    results.push(result);
                    Ok(())
                },
            );
            assert_eq!(done, Ok(()));
            assert_eq!(results, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_stream_ends_with_the_first_failure_of_the_taker() {
        let items: Vec<u32> = (0..1_000).collect();
        let take = |item| if item == 7 { Err(item) } else { Ok(()) };
        assert_eq!(in_order(&mut [(); 3], &items, |(), item| item, take), Err(7));
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_of_a_worker_is_passed_on() {
        let items: Vec<u32> = (0..100).collect();
        let work = |(): &mut (), item| assert_ne!(item, 50);
        let _done: Result<(), ()> = in_order(&mut [(); 3], &items, work, |()| Ok(()));
    }
}
