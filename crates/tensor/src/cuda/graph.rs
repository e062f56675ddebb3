//! A recorded sequence of work that is replayed by one call.

use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::sys;

use super::Context;
use crate::Error;

/// Work recorded from the stream, ready to be replayed on the same memory.
pub struct Graph {
    context: Arc<Context>,
    executable: sys::CUgraphExec,
}

// SAFETY: as for the context.
unsafe impl Send for Graph {}

impl Graph {
    /// Runs `work` while the stream records instead of executing.
    ///
    /// `work` must not wait for the device or read from it. What it allocates and drops belongs to the graph's replays:
    /// between them the arena may hand it to others, because every replay writes before it reads. What `work` leaves
    /// alive must be kept alive as long as the graph.
    ///
    /// # Errors
    /// If the device cannot record it.
    pub fn record<T>(context: &Arc<Context>, work: impl FnOnce() -> T) -> Result<(Self, T), Error> {
        let start = Instant::now();
        context.enter()?;
        context.arena().hold();
        let result = Self::record_held(context, work);
        context.spend(|spent| spent.graphs += start.elapsed());
        if result.is_err() {
            context.arena().let_go();
        }
        result
    }

    fn record_held<T>(context: &Arc<Context>, work: impl FnOnce() -> T) -> Result<(Self, T), Error> {
        let check = |result: sys::CUresult, action| {
            result.result().map_err(|error| Error::Cuda { action, reason: error.to_string() })
        };
        // Relaxed: memory may be asked of the driver while recording.
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is the context's.
        check(unsafe { sys::cuStreamBeginCapture_v2(context.stream, mode) }, "record a graph")?;
        let outcome = crate::cuda::catch(work);
        let mut graph = std::ptr::null_mut();
        // SAFETY: as above; ends the recording whatever happened in it.
        let ended = unsafe { sys::cuStreamEndCapture(context.stream, &mut graph) };
        let value = outcome?;
        check(ended, "record a graph")?;
        let mut executable = std::ptr::null_mut();
        // SAFETY: the graph was just recorded; it is not needed once instantiated.
        let instantiated = unsafe { sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0) };
        // SAFETY: made above, destroyed once.
        unsafe {
            let _ = sys::cuGraphDestroy(graph);
        }
        check(instantiated, "prepare a graph")?;
        Ok((Self { context: context.clone(), executable }, value))
    }

    /// Asks for all of it again, after all work asked for before.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn replay(&self) -> Result<(), Error> {
        self.context.enter()?;
        // SAFETY: the graph is alive, and the arena holds its memory.
        unsafe { sys::cuGraphLaunch(self.executable, self.context.stream) }
            .result()
            .map_err(|error| Error::Cuda { action: "replay a graph", reason: error.to_string() })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.context.synchronize().is_ok() {
            // SAFETY: no replay is under way.
            unsafe {
                let _ = sys::cuGraphExecDestroy(self.executable);
            }
        }
        self.context.arena().let_go();
    }
}
