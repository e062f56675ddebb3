//! The training loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use data::loader::{Batch, Loader, LoaderConfig, LoaderState};
use data::shard::Dataset;
use data::windows::sequential_windows;
use nn::hugging_face::{self, SpecialIds};
use nn::{Transformer, flops};
use tensor::cpu::gemm::Kernel;
use tensor::{Device, cuda};

use crate::checkpoint::{self, Progress};
use crate::config::Matmul;
use crate::folder::FolderLock;
use crate::metrics::{MetricsWriter, Record, Validation};
use crate::optimizer::Optimizer;
use crate::prepare::Inputs;
use crate::startup::{DeviceMemory, GpuStartup, Startup};
use crate::stepper::{Stepper, TrainState};
use crate::tensorboard::EventWriter;
use crate::validate::validate;
use crate::{Error, RunConfig, RunFolder, ceiling, matmul_choices};

/// Time spent on measuring the speed of matrix products before a run.
const CEILING_BUDGET: Duration = Duration::from_millis(200);

/// A run under way.
pub struct Trainer {
    folder: RunFolder,
    config: RunConfig,
    state: TrainState,
    stepper: Stepper,
    loader: Loader,
    validation: Arc<Dataset>,
    special: SpecialIds,
    progress: Progress,
    /// The device whose choices of algorithms the next step makes.
    measures_on: Option<Arc<cuda::Context>>,
    /// Operations per second of a matrix product here.
    ceiling: f64,
    device: Device,
    /// Where the loader is behind the batches that are staged for the next step, if they are.
    staged: Option<LoaderState>,
    /// Complete once a step was made.
    startup: Startup,
    n_steps_made: u64,
    _lock: FolderLock,
}

/// What a watcher of a run is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// The first update of this process was made.
    Started(&'a Startup),
    /// An update was made; a validation may have followed.
    Step(&'a Record),
    /// A validation is under way: sequences done, of how many.
    Validating(u64, u64),
    /// A checkpoint was written.
    Checkpoint(&'a PathBuf),
}

/// How a call of [`Trainer::run`] ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// All steps are done and the weights are written.
    Finished {
        /// Over all of the held-out text.
        validation: Validation,
    },
    /// It was asked to stop, and wrote a checkpoint.
    Stopped,
}

impl Trainer {
    /// Starts the run of an effective config in its folder, or goes on from its newest checkpoint. A new run starts from
    /// `initial` weights, if they are given, and from fresh ones otherwise.
    ///
    /// # Errors
    /// If a checkpoint is damaged, or the folder cannot be written.
    pub fn new(
        folder: &RunFolder,
        lock: FolderLock,
        config: &RunConfig,
        inputs: &Inputs,
        initial: Option<Transformer>,
    ) -> Result<Self, Error> {
        let training = &config.training;
        Kernel::from(training.kernel.value().expect("an effective config")).select()?;
        let device = Device::from_name(&training.device)?;
        checkpoint::clean(folder)?;
        let loader_config = LoaderConfig {
            context_length: config.model.context_length,
            global_batch: training.batch_size,
            seed: config.seed,
        };
        let mut loader = Loader::new(inputs.train.clone(), loader_config)?;
        // Text that is too short is found now, and not at the first validation.
        sequential_windows(&inputs.validation, config.model.context_length)?;
        let start = Instant::now();
        let (progress, model, optimizer) = match checkpoint::list(folder)?.last() {
            Some(newest) => {
                let (progress, model, optimizer) = checkpoint::load(newest, config)?;
                progress.check(config, newest)?;
                (progress, model, optimizer)
            }
            None => {
                // Drawn where they stay, and the moments beside them.
                let (model, optimizer) = cuda::catch(|| {
                    let model = match initial {
                        Some(model) => model.to(device),
                        None => Transformer::new_on(device, &config.model, config.seed),
                    };
                    let optimizer = Optimizer::new(&config.optimizer, training.grad_clip_norm, &model);
                    (model, optimizer)
                })?;
                let loader = LoaderState::default();
                (Progress { step: 0, tokens: 0, elapsed_seconds: 0.0, loader }, model, optimizer)
            }
        };
        loader.resume(progress.loader)?;
        let dtype = training.precision.value().expect("an effective config").dtype();
        let model = model.with_recompute(training.recompute.value().expect("an effective config"));
        let state = TrainState::new(model, optimizer, device, dtype)?;
        let micro_batch_size = training.micro_batch_size.value().expect("an effective config");
        let n_micro_batches = training.batch_size / micro_batch_size;
        let fp8 = training.matmul.value() == Some(Matmul::Fp8);
        let mut stepper =
            Stepper::new(device, n_micro_batches, micro_batch_size, config.model.context_length)?.with_fp8(fp8);
        let weights = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let ceiling = ceiling::matrix_product_rate(device, dtype, CEILING_BUDGET)?;
        let matrix_product_rate = start.elapsed().as_secs_f64();
        let mut measures_on = None;
        if let Device::Cuda(ordinal) = device {
            let context = cuda::context(ordinal)?;
            if !matmul_choices::restore(folder, &context)? {
                stepper = stepper.with_tuning();
                measures_on = Some(context);
            }
        }
        let end = inputs.tokenizer.end_of_text();
        Ok(Trainer {
            folder: folder.clone(),
            config: config.clone(),
            state,
            stepper,
            loader,
            validation: inputs.validation.clone(),
            special: SpecialIds { begin: end, end },
            progress,
            measures_on,
            ceiling,
            device,
            staged: None,
            startup: Startup { weights, matrix_product_rate, ..Startup::default() },
            n_steps_made: 0,
            _lock: lock,
        })
    }

    /// Where the run is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Operations per second of a matrix product on this machine, as measured at the start.
    pub fn ceiling(&self) -> f64 {
        self.ceiling
    }

    /// What the first step had to wait for; complete once a step was made.
    pub fn startup(&self) -> &Startup {
        &self.startup
    }

    /// Memory of the GPU, if the run is on one.
    pub fn device_memory(&self) -> Option<DeviceMemory> {
        DeviceMemory::of(self.device)
    }

    /// A copy of the model as it is, on the CPU and off the tape.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn model(&self) -> Result<Transformer, Error> {
        Ok(cuda::catch(|| self.state.model.to(Device::Cpu))?)
    }

    /// Trains to the end, or until `stop` is set: then the step under way is finished and a checkpoint written.
    /// `clock` gives the seconds since 1970, for the event files.
    ///
    /// # Errors
    /// If the loss is not finite, or a file cannot be written; the newest checkpoint stays good.
    pub fn run(
        &mut self,
        stop: &AtomicBool,
        clock: &dyn Fn() -> f64,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<End, Error> {
        let mut log = Log::open(&self.folder, self.progress.step, clock)?;
        let total_steps = self.config.training.steps;
        while self.progress.step < total_steps {
            let mut record = self.train_step()?;
            if self.n_steps_made == 1 {
                watch(Event::Started(&self.startup));
            }
            let done = self.progress.step;
            let is_last = done == total_steps;
            if is_last || done.is_multiple_of(self.config.training.validation_every) {
                let at_most = Some(self.config.training.validation_sequences).filter(|_| !is_last);
                record.validation = Some(self.validate(at_most, watch)?);
            }
            log.write(&record, clock())?;
            watch(Event::Step(&record));
            if is_last {
                break;
            }
            let stops = stop.load(Ordering::Relaxed);
            if stops || done.is_multiple_of(self.config.training.checkpoint_every) {
                let path = self.checkpoint()?;
                watch(Event::Checkpoint(&path));
            }
            if stops {
                return Ok(End::Stopped);
            }
        }
        let path = self.checkpoint()?;
        watch(Event::Checkpoint(&path));
        hugging_face::save(self.folder.path(), &self.model()?, self.special)?;
        let records = crate::metrics::read(&self.folder.metrics())?;
        let validation = match records.last().and_then(|record| record.validation.clone()) {
            Some(validation) => validation,
            // The records are lost or cut short: the weights are not.
            None => self.validate(None, watch)?,
        };
        Ok(End::Finished { validation })
    }

    fn train_step(&mut self) -> Result<Record, Error> {
        let start = Instant::now();
        let training = &self.config.training;
        let peak = self.state.optimizer.peak_learning_rate();
        let learning_rate = self.config.schedule.learning_rate(self.progress.step, training.steps, peak);
        let (step, is_last) = (self.progress.step, self.progress.step + 1 == training.steps);
        let loader = match self.staged.take() {
            Some(loader) => loader,
            None => self.stage_next()?,
        };
        self.stepper.begin(&mut self.state, learning_rate, step)?;
        if !is_last {
            // While the device works.
            self.staged = Some(self.stage_next()?);
        }
        let result = self.stepper.finish(step)?;
        // Before anything tells of the step: whoever goes on from it finds them.
        if let Some(context) = self.measures_on.take() {
            matmul_choices::store(&self.folder, &context)?;
        }

        let seconds = start.elapsed().as_secs_f64();
        let tokens_per_second = self.config.tokens_per_step() as f64 / seconds;
        let flops_per_second = flops::training_flops_per_token(&self.config.model) * tokens_per_second;
        let record = Record {
            step: self.progress.step,
            tokens: self.progress.tokens + self.config.tokens_per_step(),
            elapsed_seconds: self.progress.elapsed_seconds + seconds,
            loss: result.loss,
            grad_norm: result.grad_norm,
            learning_rate,
            tokens_per_second,
            mfu: Some(flops_per_second / self.ceiling),
            device_memory_bytes: self.device_memory().map(|memory| memory.peak_held),
            validation: None,
        };
        self.progress = Progress {
            step: self.progress.step + 1,
            tokens: record.tokens,
            elapsed_seconds: record.elapsed_seconds,
            loader,
        };
        self.n_steps_made += 1;
        if self.n_steps_made == 1 {
            self.startup.first_step = seconds;
            self.startup.gpu = GpuStartup::of(self.device);
        }
        Ok(record)
    }

    /// Hands the next batches to the stepper; returns where the loader is behind them.
    fn stage_next(&mut self) -> Result<LoaderState, Error> {
        let training = &self.config.training;
        let micro_batch_size = training.micro_batch_size.value().expect("an effective config");
        let n_micro_batches = training.batch_size / micro_batch_size;
        let batches: Vec<Batch> = (0..n_micro_batches).map(|_| self.loader.next_batch(micro_batch_size)).collect();
        self.stepper.stage(&batches)?;
        Ok(self.loader.state())
    }

    fn validate(&self, at_most: Option<u64>, watch: &mut dyn FnMut(Event<'_>)) -> Result<Validation, Error> {
        let batch_size = self.config.training.micro_batch_size.value().expect("an effective config");
        let mut report = |done, total| watch(Event::Validating(done, total));
        validate(self.state.compute_model(), &self.validation, batch_size, at_most, &mut report)
    }

    fn checkpoint(&self) -> Result<PathBuf, Error> {
        let keep = self.config.training.keep_checkpoints;
        checkpoint::save(&self.folder, &self.progress, &self.state, keep)
    }
}

/// The two files that follow a run.
struct Log {
    metrics: MetricsWriter,
    events: EventWriter,
}

impl Log {
    fn open(folder: &RunFolder, from_step: u64, clock: &dyn Fn() -> f64) -> Result<Self, Error> {
        let metrics = MetricsWriter::resume(&folder.metrics(), from_step)?;
        let mut events = EventWriter::create(&folder.tensorboard(), clock(), &format!("step-{from_step}"))?;
        if from_step > 0 {
            events.resume_from(from_step, clock())?;
        }
        Ok(Log { metrics, events })
    }

    fn write(&mut self, record: &Record, wall_time: f64) -> Result<(), Error> {
        self.metrics.write(record)?;
        let mut scalars = vec![
            ("train/loss", record.loss),
            ("train/grad_norm", record.grad_norm),
            ("train/learning_rate", record.learning_rate),
            ("train/tokens_per_second", record.tokens_per_second),
        ];
        if let Some(validation) = &record.validation {
            scalars.push(("validation/loss", validation.loss));
            scalars.extend(validation.bits_per_byte.map(|bits| ("validation/bits_per_byte", bits)));
        }
        for (tag, value) in scalars {
            self.events.scalar(tag, value as f32, record.step, wall_time)?;
        }
        Ok(self.events.flush()?)
    }
}
