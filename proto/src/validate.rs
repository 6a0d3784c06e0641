//! Every key of the configuration: its name, what it may be, what it means; and the rules between keys.
//!
//! [`KEYS`] is the one source: checking, messages, suggestions and the table in the README
//! ([`describe`]) all read it. A test compares it with the types in `config.rs`.
//!
//! Not here: where values come from and how they are merged (`layers.rs`).

use ::config::ValueKind;

use crate::config::{OptimizerKind, RunConfig};
use crate::layers::Layers;

/// One row of the configuration table for users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDoc {
    /// Dotted name, such as `schedule.global_batch`.
    pub name: &'static str,
    /// Value where nothing sets it, as TOML.
    pub default: String,
    /// What it may be, such as "a whole number from 2 to 1048576".
    pub range: String,
    /// What it is, such as "the number of images per optimizer step over all ranks".
    pub meaning: &'static str,
}

/// The configuration table, one row per key, section by section.
///
/// # Panics
///
/// Never: the defaults are part of the program, and a test resolves them.
pub fn describe() -> Vec<KeyDoc> {
    let defaults = Layers::default().resolve().expect("the defaults are valid, which a test shows");
    let row = |(key, (_, default)): (&Key, (String, String))| KeyDoc {
        name: key.name,
        default,
        range: key.kind.range(),
        meaning: key.meaning,
    };
    KEYS.iter().zip(defaults.config.entries()).map(row).collect()
}

/// A key of the configuration.
#[derive(Debug)]
pub(crate) struct Key {
    /// Dotted name.
    pub(crate) name: &'static str,
    /// What values it takes.
    pub(crate) kind: Kind,
    /// Ends the sentence "it is …".
    pub(crate) meaning: &'static str,
}

/// What values a key takes.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Text that is safe in file names and metrics labels.
    Name,
    /// `true` or `false`.
    Flag,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// An integer between two inclusive ends.
    Whole(u64, u64),
    /// A finite number; an integer will do.
    Number(Interval),
    /// So many finite numbers.
    Numbers(usize, Interval),
    /// At most so many steps.
    Steps(usize),
    /// A path, or nothing.
    Path,
}

/// Numbers between two finite ends, so NaN and infinity are in none.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interval {
    /// Both ends included.
    Closed(f64, f64),
    /// The low end excluded.
    Over(f64, f64),
    /// The high end excluded.
    Under(f64, f64),
}

const SHARE: Interval = Closed(0.0, 1.0);
const POSITIVE_SHARE: Interval = Over(0.0, 1.0);

/// Longest run and rarest event, in optimizer steps: 3,000 times the paper's main run.
const MAX_STEPS: u64 = 1_000_000_000;
/// TOML has no larger integer.
const MAX_TOML: u64 = i64::MAX as u64;
const MAX_NAME: usize = 64;

use Interval::{Closed, Over, Under};
use Kind::{Choice, Flag, Name, Number, Numbers, Path, Steps, Whole};

const fn key(name: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key { name, kind, meaning }
}

/// All keys, in the order of the fields of [`RunConfig`].
#[rustfmt::skip] // a table: one row per key, whatever its width
pub(crate) const KEYS: &[Key] = &[
    key("run.id", Name, "the name of the run; a worker or a checkpoint of another run is refused"),
    key("run.seed", Whole(0, MAX_TOML), "the seed of initial weights, sample order and augmentations"),
    key("run.world", Whole(1, 4096), "the number of workers to wait for"),
    key("run.min_world", Whole(0, 4096), "the fewest workers that go on when the others stay away; at 0 `run.world`"),
    key("run.max_world", Whole(0, 4096), "the most workers that train together, the rest being spares; at 0 `run.world`"),

    key("model.arch", Choice(&["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"]), "the encoder"),
    key("model.width", Number(Closed(0.0625, 4.0)), "the factor on every channel count of the encoder"),
    key("model.stem", Choice(&["imagenet", "small"]), "the first layers: `imagenet` 7×7/2 and max-pool, `small` 3×3/1 for small images"),
    key("model.padding", Choice(&["torchvision", "same"]), "the padding of strided convolutions and max-pool: as `torchvision`, or TensorFlow's `same` as the authors' code"),
    key("model.projector_hidden", Whole(1, 65536), "the number of hidden units of the projector"),
    key("model.projection_dim", Whole(1, 65536), "the number of dimensions of projection and prediction"),
    key("model.predictor_hidden", Whole(1, 65536), "the number of hidden units of the predictor"),
    key("model.init", Choice(&["fan_in", "he"]), "the distribution of initial weights: `fan_in` the authors' code, `he` torchvision's"),
    key("model.target_init", Choice(&["copy", "independent"]), "the target's initial weights: a `copy` of the online network's, or an `independent` draw"),
    key("model.last_gamma", Number(SHARE), "the initial gamma of the last batch norm of every residual block"),
    key("model.bn_eps", Number(Closed(1e-12, 0.1)), "the number added to the variance in batch norm"),
    key("model.bn_decay", Number(SHARE), "the share of the old running average that a batch-norm update keeps"),
    key("model.bn_group", Whole(0, 4096), "the number of lanes that batch norm normalizes together, within a worker; 0 for the whole batch of all workers"),
    key("model.dtype", Choice(&["bf16", "f32", "f64"]), "the type of number that the engine computes in: `bf16` with f32 weights, `f64` for tests of exactness"),
    key("model.recompute", Flag, "whether normalized activations are computed again in backward instead of kept: less memory, more time"),

    key("data.image_size", Whole(8, 1024), "the side of the square views, in pixels"),
    key("data.eval_resize", Whole(8, 2048), "the short side of an image before the centre crop of evaluation, in pixels"),
    key("data.lanes", Whole(1, 4096), "the number of virtual workers that the sample order is cut into"),
    key("data.shuffle_block", Whole(1, 1_048_576), "the number of samples of a lane that are shuffled together"),
    key("data.mean", Numbers(3, SHARE), "the mean of each channel, which is subtracted from the views"),
    key("data.std", Numbers(3, Closed(1e-6, 1.0)), "the standard deviation of each channel, which divides the views"),

    key("augment.crop_area", Numbers(2, POSITIVE_SHARE), "the share of the image's area in the random crop, `[from, to]`"),
    key("augment.crop_ratio", Numbers(2, Closed(0.01, 100.0)), "the aspect ratio of the random crop (width / height), `[from, to]`"),
    key("augment.flip", Number(SHARE), "the probability of a horizontal flip"),
    key("augment.jitter", Number(SHARE), "the probability of colour jitter"),
    key("augment.jitter_form", Choice(&["torchvision", "reference"]), "what colour jitter does: as `torchvision`, or as the authors' code (`reference`: brightness adds, contrast keeps the channels' means, saturation is that of HSV)"),
    key("augment.brightness", Number(SHARE), "the strength b of brightness jitter, a factor in `[1 − b, 1 + b]`"),
    key("augment.contrast", Number(SHARE), "the strength of contrast jitter"),
    key("augment.saturation", Number(SHARE), "the strength of saturation jitter"),
    key("augment.hue", Number(Closed(0.0, 0.5)), "the strength of hue jitter, in turns"),
    key("augment.grayscale", Number(SHARE), "the probability of grayscale"),
    key("augment.blur", Numbers(2, SHARE), "the probability of Gaussian blur, `[view 1, view 2]`"),
    key("augment.blur_sigma", Numbers(2, Over(0.0, 100.0)), "the standard deviation of the blur in pixels, `[from, to]`"),
    key("augment.solarize", Numbers(2, SHARE), "the probability of solarization, `[view 1, view 2]`"),

    key("optimizer.kind", Choice(&["lars", "sgd"]), "the update rule"),
    key("optimizer.momentum", Number(Under(0.0, 1.0)), "the momentum μ"),
    key("optimizer.nesterov", Flag, "whether SGD's momentum looks ahead (Nesterov): the step is g + μ·m instead of m"),
    key("optimizer.weight_decay", Number(SHARE), "the weight decay; biases and batch norm have none"),
    key("optimizer.trust", Number(POSITIVE_SHARE), "the trust coefficient of LARS"),

    key("schedule.global_batch", Whole(2, 1_048_576), "the number of images per optimizer step over all ranks (N)"),
    key("schedule.accumulate", Whole(1, 65536), "the number of micro-batches whose gradients make a step; batch norm is over one of them"),
    key("schedule.data_epochs", Number(Over(0.0, 1e6)), "the length of the run in passes over the data"),
    key("schedule.steps", Whole(0, MAX_STEPS), "the length of the run in optimizer steps; at 0 `schedule.data_epochs` decides"),
    key("schedule.base_learning_rate", Number(Over(0.0, 1000.0)), "the learning rate η at a batch of 256; the peak is this times N / 256"),
    key("schedule.warmup_data_epochs", Number(Closed(0.0, 1e6)), "the linear warm-up of η in passes over the data"),
    key("schedule.base_decay", Number(SHARE), "the decay τ of the target network at step 0; 1 keeps the target, 0 makes it the online network"),
    key("schedule.decay_mode", Choice(&["cosine", "constant"]), "how τ goes on: `cosine` rises to 1 at the end, `constant` stays"),
    key("schedule.scale_tau", Flag, "whether the base of τ is raised to the power of N / `schedule.reference_batch`"),
    key("schedule.reference_batch", Whole(1, 1_048_576), "the batch that the base of τ refers to, with `schedule.scale_tau`"),

    key("probe.enabled", Flag, "whether a linear classifier is trained along, where the data has labels"),

    key("knn.every_steps", Whole(0, MAX_STEPS), "the number of steps between kNN evaluations; 0 for none while training"),
    key("knn.k", Whole(1, 1000), "the number of neighbours"),
    key("knn.temperature", Number(Closed(0.02, 100.0)), "the T of the weights exp(cos/T)"),
    key("knn.samples", Whole(2, 100_000), "the number of training images in the bank while training"),

    key("checkpoint.every_steps", Whole(0, MAX_STEPS), "the number of steps between checkpoints; at 0 only when the run ends or stops"),
    key("checkpoint.keep_last", Whole(1, 1_000_000), "the number of newest checkpoints that are kept"),
    key("checkpoint.keep_every", Whole(0, MAX_STEPS), "the number whose multiples are steps with checkpoints kept for ever; 0 for none"),

    key("control.plan_window", Whole(1, 4096), "the number of steps in one plan window"),
    key("control.heartbeat_ms", Whole(10, 60_000), "the time between heartbeats, in milliseconds"),
    key("control.lease_ms", Whole(21, 3_600_000), "the silence after which a worker counts as lost, in milliseconds"),
    key("control.last_call_ms", Whole(0, 600_000), "the time for which a world waits for more workers after a failure, once it could form without them, in milliseconds"),
    key("control.cold_call_ms", Whole(0, 600_000), "the same for the first world, in milliseconds"),
    key("control.progress_ms", Whole(100, 3_600_000), "the time without progress after which the rank that holds up the others is put out, in milliseconds; five median steps where that is more"),
    key("control.cooldown_ms", Whole(0, 600_000), "the time for which a worker that failed twice in a row is kept out of worlds, in milliseconds; doubles each further time; 0 for never"),
    key("control.readopt_ms", Whole(0, 600_000), "the time for which a coordinator that was started again waits for the members of the world before, in milliseconds"),
    key("control.digest_every", Whole(0, MAX_STEPS), "the number of steps between comparisons of all ranks' digests; at 0 only at checkpoints"),
    key("control.max_skipped_steps", Whole(1, 1_000_000), "the number of steps skipped in a row, because something was not finite, at which the run fails"),

    key("collective.backend", Choice(&["auto", "host", "nccl"]), "what carries the collectives: `host` memory and TCP, or `nccl`; `auto` takes NCCL on GPUs, where the program is built with it"),
    key("collective.bucket_mib", Whole(1, 1024), "the size of a gradient bucket, in MiB"),
    key("collective.gradients", Choice(&["full", "bf16"]), "the numbers in which gradients travel: those that they are added up in, or `bf16`, which has fewer bytes and is rounded at every addition"),
    key("collective.timeout_s", Whole(1, 3600), "the silence of a peer that ends a collective, in seconds"),

    key("audit.steps", Steps(100), "the steps, counted from 0, that all workers write out so that another program can recompute them"),
    key("audit.dir", Path, "the folder, on the workers' machines, that audited steps are written to"),
];

impl Kind {
    /// Whether the value has the right type and is in range.
    pub(crate) fn accepts(&self, value: &ValueKind) -> bool {
        match self {
            Name => text(value).is_some_and(is_name),
            Flag => matches!(value, ValueKind::Boolean(_)),
            Choice(words) => text(value).is_some_and(|word| words.contains(&word)),
            Whole(low, high) => whole(value).is_some_and(|n| (*low..=*high).contains(&n)),
            Number(interval) => number(value).is_some_and(|x| interval.contains(x)),
            Numbers(length, interval) => {
                let in_range =
                    |x: &::config::Value| number(&x.kind).is_some_and(|x| interval.contains(x));
                matches!(value, ValueKind::Array(list)
                    if list.len() == *length && list.iter().all(in_range))
            }
            Steps(most) => {
                let is_step = |x: &::config::Value| whole(&x.kind).is_some_and(|n| n <= MAX_STEPS);
                matches!(value, ValueKind::Array(list)
                    if list.len() <= *most && list.iter().all(is_step))
            }
            Path => text(value).is_some_and(|path| !path.contains(char::is_control)),
        }
    }

    /// Whether a value given as bare text is that text, rather than a number or a list in TOML.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Name | Choice(_) | Path)
    }

    /// Ends the sentence "must be …".
    pub(crate) fn range(&self) -> String {
        match self {
            Name => format!("1 to {MAX_NAME} of the characters a-z A-Z 0-9 . _ -"),
            Flag => "true or false".to_owned(),
            Choice(words) => format!("one of {}", words.join(", ")),
            Whole(low, high) => format!("a whole number from {low} to {high}"),
            Number(interval) => format!("a number {}", interval.in_words()),
            Numbers(length, interval) => {
                format!("a list of {length} numbers, each {}", interval.in_words())
            }
            Steps(most) => {
                format!("a list of up to {most} whole numbers from 0 to {MAX_STEPS}")
            }
            Path => "a path without control characters, or empty".to_owned(),
        }
    }
}

impl Interval {
    fn contains(self, x: f64) -> bool {
        match self {
            Closed(low, high) => low <= x && x <= high,
            Over(low, high) => low < x && x <= high,
            Under(low, high) => low <= x && x < high,
        }
    }

    fn in_words(self) -> String {
        match self {
            Closed(low, high) => format!("from {low:?} to {high:?}"),
            Over(low, high) => format!("over {low:?} and up to {high:?}"),
            Under(low, high) => format!("from {low:?} and under {high:?}"),
        }
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed)
}

fn text(value: &ValueKind) -> Option<&str> {
    if let ValueKind::String(text) = value { Some(text) } else { None }
}

fn whole(value: &ValueKind) -> Option<u64> {
    if let ValueKind::I64(n) = value { u64::try_from(*n).ok() } else { None }
}

#[expect(clippy::cast_precision_loss, reason = "a number that large is rounded, as in TOML floats")]
fn number(value: &ValueKind) -> Option<f64> {
    if let ValueKind::Float(x) = value {
        Some(*x)
    } else if let ValueKind::I64(n) = value {
        Some(*n as f64)
    } else {
        None
    }
}

/// The key of that name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that someone who wrote `name` most likely meant.
///
/// A right last part counts for much: the usual slip, next to typing, is the wrong section or none.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let distance = |key: &Key| {
        let whole_name = strsim::damerau_levenshtein(name, key.name);
        let last_part = strsim::damerau_levenshtein(last_part(name), last_part(key.name));
        whole_name.min(last_part + 1)
    };
    let (best, key) = KEYS.iter().map(|key| (distance(key), key)).min_by_key(|(best, _)| *best)?;
    (best <= 3).then_some(key.name)
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A rule between keys that are each in range.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The keys, the one to look at first in front.
    pub(crate) keys: &'static [&'static str],
    /// What must hold, and what to do.
    pub(crate) sentence: &'static str,
    /// Whether it does.
    pub(crate) holds: fn(&RunConfig) -> bool,
}

const ORDERED: &str = "the first number must not be over the second; exchange them";

/// All rules between keys.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        keys: &["data.lanes", "schedule.global_batch"],
        sentence: "the lanes must divide the global batch, so that each gives as many images to \
                   every step; change one of them",
        holds: |c| c.schedule.global_batch.is_multiple_of(c.data.lanes),
    },
    Rule {
        keys: &["schedule.accumulate", "data.lanes", "schedule.global_batch"],
        sentence: "every lane must give as many images to each micro-batch: the first must divide \
                   the third divided by the second; lower the micro-batches or the lanes",
        holds: |c| (c.schedule.global_batch / c.data.lanes).is_multiple_of(c.schedule.accumulate),
    },
    Rule {
        keys: &["schedule.accumulate", "schedule.global_batch"],
        sentence: "batch norm needs two images or more; lower the micro-batches or raise the batch",
        holds: |c| c.schedule.global_batch / c.schedule.accumulate >= 2,
    },
    Rule {
        keys: &["run.min_world", "run.world"],
        sentence: "the fewest workers must not be more than those to wait for; lower the first",
        holds: |c| c.run.least() <= c.run.world,
    },
    Rule {
        keys: &["run.max_world", "run.world"],
        sentence: "the most workers must not be fewer than those to wait for; raise the first",
        holds: |c| c.run.most() >= c.run.world,
    },
    Rule {
        keys: &["data.lanes", "run.world", "run.max_world"],
        sentence: "every worker needs a lane; raise the lanes or start fewer workers",
        holds: |c| c.data.lanes >= c.run.most(),
    },
    Rule {
        keys: &["model.bn_group", "data.lanes"],
        sentence: "the groups of batch norm are made of whole lanes: the first must divide the \
                   second; change one of them",
        holds: |c| c.model.bn_group == 0 || c.data.lanes.is_multiple_of(c.model.bn_group),
    },
    Rule {
        keys: &["model.bn_group", "data.lanes", "run.world", "run.max_world"],
        sentence: "every worker needs a whole group of batch norm; lower the first, raise the lanes \
                   or start fewer workers",
        holds: |c| c.model.bn_group == 0 || c.data.lanes / c.model.bn_group >= c.run.most(),
    },
    Rule {
        keys: &["model.bn_group", "data.lanes", "schedule.accumulate", "schedule.global_batch"],
        sentence: "a group of batch norm needs two images or more of a micro-batch; raise the first \
                   or lower the second or third",
        holds: |c| {
            let slots = c.schedule.global_batch / c.data.lanes / c.schedule.accumulate;
            c.model.bn_group == 0 || u64::from(c.model.bn_group) * u64::from(slots) >= 2
        },
    },
    Rule {
        keys: &["data.eval_resize", "data.image_size"],
        sentence: "the centre crop must fit into the resized image; raise the first or lower the \
                   second",
        holds: |c| c.data.eval_resize >= c.data.image_size,
    },
    Rule {
        keys: &["knn.k", "knn.samples"],
        sentence: "the neighbours must be fewer than the images in the bank; lower the first or \
                   raise the second",
        holds: |c| c.knn.k < c.knn.samples,
    },
    Rule {
        keys: &["optimizer.nesterov", "optimizer.kind"],
        sentence: "Nesterov momentum is defined for SGD only; set the first to false or the second \
                   to sgd",
        holds: |c| !c.optimizer.nesterov || c.optimizer.kind == OptimizerKind::Sgd,
    },
    Rule {
        keys: &["control.lease_ms", "control.heartbeat_ms"],
        sentence: "the lease must be over two heartbeats, so that a late one loses no worker; \
                   raise the first or lower the second",
        holds: |c| c.control.lease_ms > 2 * c.control.heartbeat_ms,
    },
    Rule {
        keys: &["audit.steps", "audit.dir"],
        sentence: "an audit needs both steps and a folder; give both or neither",
        holds: |c| c.audit.steps.is_empty() == c.audit.dir.is_empty(),
    },
    Rule {
        keys: &["augment.crop_area"],
        sentence: ORDERED,
        holds: |c| c.augment.crop_area.is_sorted(),
    },
    Rule {
        keys: &["augment.crop_ratio"],
        sentence: ORDERED,
        holds: |c| c.augment.crop_ratio.is_sorted(),
    },
    Rule {
        keys: &["augment.blur_sigma"],
        sentence: ORDERED,
        holds: |c| c.augment.blur_sigma.is_sorted(),
    },
];

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::config::{Arch, DecayMode, Dtype, Init, JitterForm, Padding, Stem, TargetInit};

    #[test]
    fn the_table_has_the_keys_of_the_types_in_their_order() {
        let config = Layers::default().resolve().unwrap().config;
        let fields: Vec<_> = config.entries().into_iter().map(|(key, _)| key).collect();
        assert_eq!(KEYS.iter().map(|key| key.name).collect::<Vec<_>>(), fields);
    }

    #[test]
    fn the_table_has_the_words_of_the_types() {
        for (key, variants) in [
            ("model.arch", words::<Arch>()),
            ("model.stem", words::<Stem>()),
            ("model.padding", words::<Padding>()),
            ("model.init", words::<Init>()),
            ("model.target_init", words::<TargetInit>()),
            ("model.dtype", words::<Dtype>()),
            ("augment.jitter_form", words::<JitterForm>()),
            ("optimizer.kind", words::<OptimizerKind>()),
            ("schedule.decay_mode", words::<DecayMode>()),
        ] {
            let Choice(words) = find(key).unwrap().kind else { panic!("{key} is no choice") };
            assert_eq!(words, variants, "{key}");
        }
    }

    /// Names of all variants, from the message that serde gives for a wrong one.
    fn words<T: DeserializeOwned>() -> Vec<String> {
        let message = serde_json::from_str::<T>("\"?\"").err().unwrap().to_string();
        message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_rule_is_about_keys_that_exist() {
        for rule in RULES {
            assert!(rule.keys.iter().all(|key| find(key).is_some()), "{:?}", rule.keys);
        }
    }

    #[test]
    fn variants_of_the_algorithm_that_make_no_sense_together_are_refused() {
        let faults = |settings: &str| {
            let sets = settings.split(' ').map(|set| set.split_once('=').unwrap());
            let flags = sets.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let resolved = Layers { flags, ..Layers::default() }.resolve();
            resolved.err().map_or_else(String::new, |faults| faults.to_string())
        };
        for (settings, words) in [
            ("optimizer.nesterov=true", "defined for SGD only"),
            ("schedule.accumulate=3", "as many images to each micro-batch"),
            ("schedule.accumulate=4096 data.lanes=1", "batch norm needs two images"),
            ("model.bn_group=3", "made of whole lanes"),
            ("model.bn_group=256 run.world=2", "every worker needs a whole group"),
            ("model.bn_group=1 data.lanes=4096", "needs two images or more of a micro-batch"),
        ] {
            let said = faults(settings);
            assert!(said.contains(words), "{settings}: {said}");
        }
        for settings in [
            "optimizer.nesterov=true optimizer.kind=sgd",
            "schedule.accumulate=16",
            "model.bn_group=128 run.world=2",
            "model.bn_group=1 schedule.accumulate=8",
        ] {
            assert_eq!(faults(settings), "", "{settings}");
        }
    }

    #[test]
    fn ranges_are_put_into_words() {
        for (key, range) in [
            ("run.id", "1 to 64 of the characters a-z A-Z 0-9 . _ -"),
            ("model.stem", "one of imagenet, small"),
            ("model.bn_eps", "a number from 1e-12 to 0.1"),
            ("optimizer.momentum", "a number from 0.0 and under 1.0"),
            ("schedule.global_batch", "a whole number from 2 to 1048576"),
            ("augment.crop_area", "a list of 2 numbers, each over 0.0 and up to 1.0"),
            ("probe.enabled", "true or false"),
            ("audit.steps", "a list of up to 100 whole numbers from 0 to 1000000000"),
        ] {
            assert_eq!(find(key).unwrap().kind.range(), range);
        }
    }

    #[test]
    fn slips_of_typing_and_wrong_sections_find_the_key_that_was_meant() {
        for (slip, meant) in [
            ("schedule.globl_batch", Some("schedule.global_batch")),
            ("global_batch", Some("schedule.global_batch")),
            ("optimizer.base_decay", Some("schedule.base_decay")),
            ("augment.gray_scale", Some("augment.grayscale")),
            ("model.attention_heads", None),
        ] {
            assert_eq!(nearest(slip), meant, "{slip}");
        }
    }

    #[test]
    fn the_table_for_users_shows_default_range_and_meaning() {
        let rows = describe();
        assert_eq!(rows.len(), KEYS.len());
        assert!(rows.contains(&KeyDoc {
            name: "data.mean",
            default: "[0.485, 0.456, 0.406]".to_owned(),
            range: "a list of 3 numbers, each from 0.0 to 1.0".to_owned(),
            meaning: "the mean of each channel, which is subtracted from the views",
        }));
    }
}
