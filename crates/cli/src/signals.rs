//! Ctrl-C and SIGTERM during a run: the first asks, the second kills.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::ui;

/// The exit code of a process that a signal ended is this plus the signal's number.
const SIGNAL_EXIT_BASE: i32 = 128;

/// How often the watcher looks whether a signal came.
const WATCH_EVERY: Duration = Duration::from_millis(10);

/// What a run is doing, and so what a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Making its inputs. Nothing is half-written at any moment, so the process ends at once.
    Preparing,
    /// The step under way is finished and a checkpoint written.
    Training,
    /// All steps are done and in a checkpoint, the rest can be done again, so the process ends at once.
    Finishing {
        /// All that the run has.
        steps: u64,
    },
    /// There is nothing left to stop.
    Finished,
}

/// Whether, and by which signal, this process was asked to stop.
pub(crate) struct StopRequest {
    shared: Arc<Shared>,
}

struct Shared {
    asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
    /// Locked while the process ends, so that it ends once.
    state: Mutex<State>,
    /// Where `--json` is asked for: the run's folder.
    json: Option<PathBuf>,
}

struct State {
    phase: Phase,
    /// Whether the user was told that training will stop.
    is_announced: bool,
}

/// The result of a run that was stopped.
#[derive(Serialize)]
struct StoppedOutput<'a> {
    status: &'static str,
    run: &'a Path,
    /// Steps done; not known while the inputs are prepared.
    step: Option<u64>,
}

impl StopRequest {
    /// Listens from here on, for the rest of the process, in [`Phase::Preparing`]. With `json`, a process that a signal
    /// ends says so in one JSON object about the run in the folder `run`.
    pub(crate) fn listen(run: &Path, json: bool) -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM] {
            // Registered first, so that it sees the flag as the signals before this one left it.
            flag::register_conditional_shutdown(number, SIGNAL_EXIT_BASE + number, Arc::clone(&asked))
                .and_then(|_| flag::register_usize(number, Arc::clone(&signal), number as usize))
                .and_then(|_| flag::register(number, Arc::clone(&asked)))
                .context("cannot listen for ctrl-c and SIGTERM")?;
        }
        let state = Mutex::new(State { phase: Phase::Preparing, is_announced: false });
        let shared = Arc::new(Shared { asked, signal, state, json: json.then(|| run.to_owned()) });
        let watched = Arc::clone(&shared);
        let watcher = std::thread::Builder::new().name("signals".to_owned());
        watcher
            .spawn(move || {
                while !watched.react() {
                    std::thread::sleep(WATCH_EVERY);
                }
            })
            .context("cannot start the thread that waits for signals")?;
        Ok(StopRequest { shared })
    }

    /// Set once a stop was asked for.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.shared.asked
    }

    /// Goes on to another phase; ends the process if a stop was asked for and the phase lets it.
    pub(crate) fn enter(&self, phase: Phase) {
        self.shared.lock().phase = phase;
        if !matches!(phase, Phase::Training | Phase::Finished) {
            self.shared.react();
        }
    }

    /// Tells how training came to a stop, and gives what the process ends with.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(crate) fn stopped(&self, step: u64) -> Result<ExitCode> {
        self.shared.lock().phase = Phase::Finished;
        self.shared.print_json(Some(step))?;
        // 130 after Ctrl-C, 143 after SIGTERM, as shells expect.
        Ok(ExitCode::from(self.shared.exit_code() as u8))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exit_code(&self) -> i32 {
        SIGNAL_EXIT_BASE + self.signal.load(Ordering::Relaxed) as i32
    }

    fn print_json(&self, step: Option<u64>) -> Result<()> {
        let Some(run) = &self.json else { return Ok(()) };
        ui::print_json(&StoppedOutput { status: "stopped", run, step })
    }

    /// Does what a signal asks for, if one came. Whether there is nothing left to watch for.
    fn react(&self) -> bool {
        let mut state = self.lock();
        if !self.asked.load(Ordering::Acquire) {
            return state.phase == Phase::Finished;
        }
        match state.phase {
            Phase::Finished => true,
            Phase::Training => {
                if !state.is_announced {
                    state.is_announced = true;
                    ui::note(
                        "stopping after this step: a checkpoint will be written (ctrl-c again ends at once and loses \
                         the steps since the last one)",
                    );
                }
                false
            }
            Phase::Preparing => self.end(
                None,
                "stopped before the first step: nothing is lost, the same command goes on with what is not prepared yet",
            ),
            Phase::Finishing { steps } => self.end(
                Some(steps),
                "stopped after training: it is complete and nothing is lost, the same command does the rest",
            ),
        }
    }

    /// Ends the process at once, without running what it would run at its end.
    fn end(&self, step: Option<u64>, message: &str) -> ! {
        ui::progress::clear_screen();
        ui::note(message);
        // The exit code tells as much, if nobody can be told this.
        let _ = self.print_json(step);
        low_level::exit(self.exit_code())
    }
}
