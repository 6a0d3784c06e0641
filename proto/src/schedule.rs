//! Schedules: every hyper-parameter that changes during a run, and how long the run is.
//!
//! Place in the run: the coordinator makes one [`Schedule`] from the configuration and the number
//! of samples, and sends `plan(k)` to the workers in windows, ahead of time.
//!
//! All functions here are pure in the step. A run that resumes at step `k` computes what an
//! uninterrupted one would, so no schedule is checkpointed.
//!
//! Not here: which samples step `k` takes (that is the sample order, dealt in lanes).

use std::num::NonZeroU64;

use crate::config::{self, DecayMode};
use crate::ids::Step;

/// Batch size that `schedule.base_learning_rate` refers to.
const REFERENCE_BATCH: f64 = 256.0;

/// Share of the old target network kept by one update, in `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Decay(pub f64);

/// Learning rate η of one optimizer step, ≥ 0.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct LearningRate(pub f64);

/// Why a configuration and a data set make no schedule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// The data set does not fill one batch.
    #[error(
        "the data set has {samples} samples, fewer than the {global_batch} of one step: lower \
         `schedule.global_batch` or add data"
    )]
    TooFewSamples {
        /// S.
        samples: u64,
        /// N.
        global_batch: u32,
    },
    /// The run is shorter than one step.
    #[error(
        "{data_epochs} data epochs of {samples} samples make less than one step of \
         {global_batch}: raise `schedule.data_epochs` or set `schedule.steps`"
    )]
    NoSteps {
        /// Passes over the data.
        data_epochs: f64,
        /// S.
        samples: u64,
        /// N.
        global_batch: u32,
    },
}

/// Length and rates of one run; the same on every process that has the same configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    total: NonZeroU64,
    warmup: u64,
    peak: LearningRate,
    base: Decay,
    mode: DecayMode,
}

impl Schedule {
    /// Schedule of a run over a data set of `samples` images (S).
    pub fn new(config: &config::RunConfig, samples: u64) -> Result<Self, ScheduleError> {
        let section = &config.schedule;
        let global_batch = section.global_batch;
        if samples < u64::from(global_batch) {
            return Err(ScheduleError::TooFewSamples { samples, global_batch });
        }
        let total =
            NonZeroU64::new(total_steps(section, samples)).ok_or(ScheduleError::NoSteps {
                data_epochs: section.data_epochs,
                samples,
                global_batch,
            })?;
        Ok(Self {
            total,
            warmup: warmup_steps(section, samples),
            peak: peak_learning_rate(section),
            base: base_decay(section),
            mode: section.decay_mode,
        })
    }

    /// K: optimizer steps in the whole run.
    pub fn total(&self) -> NonZeroU64 {
        self.total
    }

    /// W: optimizer steps of linear warm-up. Where it is K or more, η never reaches its peak.
    pub fn warmup(&self) -> u64 {
        self.warmup
    }

    /// Highest η of the run.
    pub fn peak(&self) -> LearningRate {
        self.peak
    }

    /// τ and η of optimizer step `step`.
    pub fn plan(&self, step: Step) -> (Decay, LearningRate) {
        let decay = match self.mode {
            DecayMode::Cosine => target_decay(step, self.total, self.base),
            DecayMode::Constant => self.base,
        };
        (decay, learning_rate(step, self.total, self.warmup, self.peak))
    }
}

/// K: optimizer steps in the run.
///
/// ```text
/// K = steps                  if steps > 0
/// K = ⌊data_epochs · S / N⌋  otherwise
/// ```
///
/// * `S` = `samples`, images in the data set;
/// * `N` = `global_batch`, images per optimizer step over all ranks.
///
/// 0 where the data set is too small. Source: Grill et al. 2020, section 3.3; 312,784 for 1000 data
/// epochs of ImageNet at N = 4096.
pub fn total_steps(section: &config::Schedule, samples: u64) -> u64 {
    if section.steps > 0 {
        section.steps
    } else {
        steps_in(section.data_epochs, samples, section.global_batch)
    }
}

/// W: optimizer steps over which η rises linearly.
///
/// ```text
/// W = ⌊warmup_data_epochs · S / N⌋
/// ```
///
/// Symbols as in [`total_steps`]. Source: Grill et al. 2020, section 3.3: 10 data epochs.
pub fn warmup_steps(section: &config::Schedule, samples: u64) -> u64 {
    steps_in(section.warmup_data_epochs, samples, section.global_batch)
}

/// Highest learning rate: `base_learning_rate · N / 256`.
///
/// Source: Grill et al. 2020, section 3.3; linear scaling after Goyal et al. 2017, arXiv:1706.02677.
pub fn peak_learning_rate(section: &config::Schedule) -> LearningRate {
    LearningRate(section.base_learning_rate * f64::from(section.global_batch) / REFERENCE_BATCH)
}

/// Learning rate η at `step`.
///
/// ```text
/// η(k) = peak · k / W                                  for k < W
/// η(k) = peak · (1 + cos(π · (k − W) / (K − W))) / 2   for k ≥ W
/// ```
///
/// * `k` = `step`, in optimizer steps; steps beyond `K` count as `K`;
/// * `K` = `total`, `W` = `warmup`, in the same unit;
/// * `peak` = base learning rate · N / 256.
///
/// Rises from 0 at `k = 0` to `peak` at `k = W`, then falls to 0 at `k = K`. A run no longer than
/// its warm-up (`W ≥ K`) only rises.
///
/// Source: Grill et al. 2020, section 3.3; `learning_schedule` in the authors' code.
pub fn learning_rate(
    step: Step,
    total: NonZeroU64,
    warmup: u64,
    peak: LearningRate,
) -> LearningRate {
    let k = step.0.min(total.get());
    if k < warmup || total.get() <= warmup {
        return LearningRate(peak.0 * ratio(k, warmup));
    }
    LearningRate(peak.0 * half_cosine(ratio(k - warmup, total.get() - warmup)))
}

/// Base τ₀ of the decay: `base_decay`, or with `scale_tau` what forgets as much per image at N as
/// `base_decay` does at the reference batch.
///
/// ```text
/// τ₀ = base_decay^κ,   κ = N / reference_batch
/// ```
///
/// Source: Busbridge et al. 2023, arXiv:2307.13813, definition 1.2.
pub fn base_decay(section: &config::Schedule) -> Decay {
    if !section.scale_tau {
        return Decay(section.base_decay);
    }
    let scale = f64::from(section.global_batch) / f64::from(section.reference_batch);
    Decay(section.base_decay.powf(scale))
}

/// Decay τ of the target network's moving average at `step`.
///
/// ```text
/// τ(k) = 1 − (1 − τ₀) · (1 + cos(π · k / K)) / 2
/// ```
///
/// * `k` = `step`, in optimizer steps (not data epochs); steps beyond `K` count as `K`;
/// * `K` = `total`, in the same unit;
/// * `τ₀` = `base`, 0.996 in the paper's main run.
///
/// Rises from `base` at `k = 0` to 1 at `k = K`, where the target stops moving.
///
/// Source: Grill et al. 2020, section 3.3; `target_ema` in the authors' code.
pub fn target_decay(step: Step, total: NonZeroU64, base: Decay) -> Decay {
    let progress = ratio(step.0.min(total.get()), total.get());
    Decay(1.0 - (1.0 - base.0) * half_cosine(progress))
}

/// Whole steps of `global_batch` in `data_epochs` passes over `samples`.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 samples")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and the floor is meant"
)]
fn steps_in(data_epochs: f64, samples: u64, global_batch: u32) -> u64 {
    (data_epochs * samples as f64 / f64::from(global_batch)).floor() as u64
}

/// `(1 + cos(π·progress)) / 2`: falls from 1 to 0 as `progress` goes from 0 to 1.
fn half_cosine(progress: f64) -> f64 {
    (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 steps")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IMAGENET: u64 = 1_281_167;

    fn section(data_epochs: f64, base_learning_rate: f64, base_decay: f64) -> config::Schedule {
        config::Schedule {
            global_batch: 4096,
            accumulate: 1,
            data_epochs,
            steps: 0,
            base_learning_rate,
            warmup_data_epochs: 10.0,
            base_decay,
            decay_mode: DecayMode::Cosine,
            scale_tau: false,
            reference_batch: 4096,
        }
    }

    #[test]
    fn lengths_and_peaks_are_those_of_the_paper() {
        for (data_epochs, base, total, peak) in [
            (40.0, 0.45, 12_511, 7.2),
            (100.0, 0.45, 31_278, 7.2),
            (300.0, 0.3, 93_835, 4.8),
            (1000.0, 0.2, 312_784, 3.2),
        ] {
            let section = section(data_epochs, base, 0.99);
            assert_eq!(total_steps(&section, IMAGENET), total);
            assert_eq!(warmup_steps(&section, IMAGENET), 3_127);
            assert_close(peak_learning_rate(&section).0, peak);
        }
    }

    #[test]
    fn learning_rate_rises_linearly_to_its_peak_then_falls_to_zero() {
        let total = NonZeroU64::new(1100).unwrap();
        for (step, want) in
            [(0, 0.0), (50, 1.6), (99, 3.168), (100, 3.2), (600, 1.6), (1100, 0.0), (9999, 0.0)]
        {
            assert_close(learning_rate(Step(step), total, 100, LearningRate(3.2)).0, want);
        }
    }

    #[test]
    fn a_run_no_longer_than_its_warmup_only_rises() {
        let total = NonZeroU64::new(100).unwrap();
        for (step, warmup, want) in [(50, 100, 0.5), (100, 100, 1.0), (100, 200, 0.5)] {
            assert_close(learning_rate(Step(step), total, warmup, LearningRate(1.0)).0, want);
        }
    }

    #[test]
    fn without_warmup_the_first_step_has_the_peak() {
        let total = NonZeroU64::new(100).unwrap();
        assert_close(learning_rate(Step(0), total, 0, LearningRate(0.4)).0, 0.4);
    }

    #[test]
    fn target_decay_starts_at_base_and_ends_at_one() {
        let total = NonZeroU64::new(1000).unwrap();
        for (step, want) in [(0, 0.996), (500, 0.998), (1000, 1.0), (5000, 1.0)] {
            assert_close(target_decay(Step(step), total, Decay(0.996)).0, want);
        }
    }

    #[test]
    fn a_constant_decay_stays_at_its_base_from_the_first_step_to_the_last() {
        let mut config = tiny();
        config.schedule.decay_mode = DecayMode::Constant;
        for base in [0.0, 0.9, 1.0] {
            config.schedule.base_decay = base;
            let schedule = Schedule::new(&config, 64).unwrap();
            for step in [0, 10, 19, 20] {
                assert_eq!(schedule.plan(Step(step)).0, Decay(base), "step {step}");
            }
        }
    }

    #[test]
    fn a_scaled_decay_forgets_as_much_per_image_as_the_reference_batch() {
        let scaled = |global_batch, base| {
            let section = section(300.0, 0.3, base);
            base_decay(&config::Schedule { global_batch, scale_tau: true, ..section }).0
        };
        // 0.99^(1/4) is 0.997490…: four steps of 1,024 make 0.99.
        assert_close(scaled(1024, 0.99), 0.997_490_569_933_681_1);
        assert_close(scaled(1024, 0.99).powi(4), 0.99);
        assert_close(scaled(4096, 0.99), 0.99);
        assert_close(scaled(8192, 0.99), 0.980_1);
        assert_close(scaled(512, 0.0), 0.0);
        assert_close(scaled(512, 1.0), 1.0);
    }

    #[test]
    fn without_scaling_the_reference_batch_changes_nothing() {
        let section = config::Schedule { reference_batch: 1, ..section(300.0, 0.3, 0.99) };
        assert_close(base_decay(&section).0, 0.99);
    }

    #[test]
    fn a_number_of_steps_overrides_the_data_epochs() {
        let section = config::Schedule { steps: 20, ..section(40.0, 0.45, 0.97) };
        assert_eq!(total_steps(&section, IMAGENET), 20);
    }

    fn tiny() -> config::RunConfig {
        let preset = Some("tiny".to_owned());
        crate::layers::Layers { preset, ..Default::default() }.resolve().unwrap().config
    }

    #[test]
    fn a_plan_has_the_rates_of_its_step_and_is_the_same_when_asked_again() {
        let schedule = Schedule::new(&tiny(), 64).unwrap();
        assert_eq!(schedule.total().get(), 20);
        let (decay, rate) = schedule.plan(Step(10));
        assert_close(decay.0, 0.995);
        assert_close(rate.0, 0.0125);
        assert_eq!(schedule.plan(Step(10)), (decay, rate));
    }

    #[test]
    fn a_data_set_smaller_than_one_batch_is_refused() {
        let error = Schedule::new(&tiny(), 63).unwrap_err();
        assert_eq!(error, ScheduleError::TooFewSamples { samples: 63, global_batch: 64 });
        assert!(error.to_string().contains("63 samples, fewer than the 64 of one step"), "{error}");
    }

    #[test]
    fn a_run_of_less_than_one_step_is_refused() {
        let mut config = tiny();
        config.schedule.steps = 0;
        config.schedule.data_epochs = 0.5;
        let error = Schedule::new(&config, 127).unwrap_err();
        let want = ScheduleError::NoSteps { data_epochs: 0.5, samples: 127, global_batch: 64 };
        assert_eq!(error, want);
        assert_eq!(Schedule::new(&config, 128).unwrap().total().get(), 1);
    }

    proptest! {
        #[test]
        fn target_decay_never_falls(
            base in 0.0..=1.0_f64, total in 1..1_000_000_u64, step in 0..1_000_000_u64
        ) {
            let total = NonZeroU64::new(total).unwrap();
            let now = target_decay(Step(step), total, Decay(base));
            let next = target_decay(Step(step + 1), total, Decay(base));
            prop_assert!(now <= next && next.0 <= 1.0, "{now:?} then {next:?}");
            prop_assert!(now.0 >= base - 1e-12);
        }

        #[test]
        fn learning_rate_stays_between_zero_and_its_peak(
            total in 1..1_000_000_u64, warmup in 0..1_000_000_u64, step in any::<u64>()
        ) {
            let total = NonZeroU64::new(total).unwrap();
            let rate = learning_rate(Step(step), total, warmup, LearningRate(3.2));
            prop_assert!((0.0..=3.2).contains(&rate.0), "{rate:?}");
        }
    }

    fn assert_close(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-12, "got {got}, want {want}");
    }
}
