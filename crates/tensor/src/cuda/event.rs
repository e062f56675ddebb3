//! Time on the device.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{result, sys};

use super::{Context, driver_error};
use crate::Error;

/// A mark in the stream, with the device's time of reaching it.
pub struct Event {
    context: Arc<Context>,
    event: sys::CUevent,
}

impl Event {
    /// Marks what has been asked for so far.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn record(context: &Arc<Context>) -> Result<Self, Error> {
        context.enter()?;
        let event =
            result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(driver_error("make an event"))?;
        let this = Self { context: context.clone(), event };
        // SAFETY: event and stream belong to the current context and are alive.
        unsafe { result::event::record(event, context.stream) }.map_err(driver_error("record an event"))?;
        Ok(this)
    }

    /// Device time since `earlier`, once both are reached.
    ///
    /// # Errors
    /// If work before them failed.
    pub fn since(&self, earlier: &Event) -> Result<Duration, Error> {
        self.context.enter()?;
        // SAFETY: both events are alive and recorded.
        let milliseconds = unsafe {
            result::event::synchronize(self.event).map_err(driver_error("wait for an event"))?;
            result::event::elapsed(earlier.event, self.event).map_err(driver_error("read an event's time"))?
        };
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: made in this context, destroyed only here.
            unsafe {
                let _ = result::event::destroy(self.event);
            }
        }
    }
}
