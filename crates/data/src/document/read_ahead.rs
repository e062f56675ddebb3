//! Reading on a thread of its own, while what was read is worked on.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

/// Takes items from `items` on another thread, up to `n` of them ahead.
pub fn read_ahead<T: Send + 'static>(items: impl Iterator<Item = T> + Send + 'static, n: usize) -> ReadAhead<T> {
    let (sender, receiver) = sync_channel(n);
    let thread = thread::spawn(move || {
        for item in items {
            // Nobody wants more.
            if sender.send(item).is_err() {
                break;
            }
        }
    });
    ReadAhead { receiver, thread: Some(thread) }
}

/// Iterator over what another thread reads; see [`read_ahead`].
pub struct ReadAhead<T> {
    receiver: Receiver<T>,
    thread: Option<JoinHandle<()>>,
}

impl<T> Iterator for ReadAhead<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let item = self.receiver.recv().ok();
        if item.is_none()
            && let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_order_whoever_stops_first() {
        assert_eq!(read_ahead(0..1000, 3).collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
        assert_eq!(read_ahead(0.., 3).take(10).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    #[should_panic(expected = "in the reader")]
    fn a_panic_of_the_reader_is_not_an_end() {
        let items = (0..3).inspect(|&i| assert!(i < 2, "in the reader"));
        read_ahead(items, 1).for_each(drop);
    }
}
