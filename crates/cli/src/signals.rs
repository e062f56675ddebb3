//! Ctrl-C and SIGTERM during training: the first asks, the second kills.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit code of a process that a signal ended is this plus the signal's number.
const SIGNAL_EXIT_BASE: i32 = 128;

/// Whether, and by which signal, this process was asked to stop.
pub(crate) struct StopRequest {
    asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl StopRequest {
    /// Listens from here on, for the rest of the process.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM] {
            // Registered first, so that it sees the flag as the signals before this one left it.
            flag::register_conditional_shutdown(number, SIGNAL_EXIT_BASE + number, Arc::clone(&asked))?;
            flag::register_usize(number, Arc::clone(&signal), number as usize)?;
            flag::register(number, Arc::clone(&asked))?;
        }
        Ok(StopRequest { asked, signal })
    }

    /// Set once a stop was asked for.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.asked
    }

    /// 130 after Ctrl-C, 143 after SIGTERM, as shells expect.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let signal = self.signal.load(Ordering::Relaxed);
        ExitCode::from((SIGNAL_EXIT_BASE as usize + signal) as u8)
    }
}
