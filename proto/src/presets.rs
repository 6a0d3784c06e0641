//! The configurations that ship with the program, by name.
//!
//! Each is a TOML file in `presets/` whose first line says what it reproduces. It lists only what it
//! changes: in the preset that it `extends`, or else in the defaults, which are the paper's main run.

/// A named configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// What `--preset` takes.
    pub name: &'static str,
    pub(crate) toml: &'static str,
}

impl Preset {
    /// What the preset is for: the result of the paper that it reproduces, if any.
    pub fn about(&self) -> &'static str {
        self.toml.lines().next().unwrap_or_default().trim_start_matches("# ")
    }
}

/// Values of every key that nothing else sets: 1000 data epochs of ImageNet.
pub(crate) const DEFAULTS: &str = include_str!("../presets/imagenet-r50-1000ep.toml");

const PRESETS: &[Preset] = &[
    Preset { name: "imagenet-r50-1000ep", toml: DEFAULTS },
    Preset { name: "imagenet-r50-300ep", toml: include_str!("../presets/imagenet-r50-300ep.toml") },
    Preset { name: "imagenet-r50-100ep", toml: include_str!("../presets/imagenet-r50-100ep.toml") },
    Preset { name: "imagenet-r50-40ep", toml: include_str!("../presets/imagenet-r50-40ep.toml") },
    Preset { name: "compact", toml: include_str!("../presets/compact.toml") },
    Preset { name: "no-flip", toml: include_str!("../presets/no-flip.toml") },
    Preset { name: "no-blur", toml: include_str!("../presets/no-blur.toml") },
    Preset { name: "no-color", toml: include_str!("../presets/no-color.toml") },
    Preset { name: "crop-and-flip", toml: include_str!("../presets/crop-and-flip.toml") },
    Preset { name: "crop-only", toml: include_str!("../presets/crop-only.toml") },
    Preset { name: "target-random", toml: include_str!("../presets/target-random.toml") },
    Preset { name: "target-online", toml: include_str!("../presets/target-online.toml") },
    Preset { name: "demo", toml: include_str!("../presets/demo.toml") },
    Preset { name: "demo-long", toml: include_str!("../presets/demo-long.toml") },
    Preset { name: "tiny", toml: include_str!("../presets/tiny.toml") },
];

/// All presets, in the order to show them in.
pub fn presets() -> &'static [Preset] {
    PRESETS
}

/// The preset of that name.
pub(crate) fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "a value must arrive bit by bit")]
mod tests {
    use super::*;
    use crate::config::{OptimizerKind, RunConfig, TargetInit};
    use crate::ids::Step;
    use crate::layers::Layers;
    use crate::schedule::{Decay, Schedule};

    fn resolve(name: &str) -> RunConfig {
        let layers = Layers { preset: Some(name.to_owned()), ..Layers::default() };
        layers.resolve().unwrap_or_else(|faults| panic!("{name}: {faults}")).config
    }

    #[test]
    fn every_preset_is_valid_says_what_it_is_and_has_its_own_name() {
        for (index, preset) in PRESETS.iter().enumerate() {
            resolve(preset.name);
            assert!(preset.toml.starts_with("# ") && preset.about().ends_with('.'), "{preset:?}");
            assert!(PRESETS.iter().skip(index + 1).all(|other| other.name != preset.name));
        }
    }

    #[test]
    fn presets_have_the_rates_of_the_papers_table() {
        for (name, total, peak, weight_decay, base_decay) in [
            ("imagenet-r50-40ep", 12_511, 7.2, 1e-6, 0.97),
            ("imagenet-r50-100ep", 31_278, 7.2, 1e-6, 0.99),
            ("imagenet-r50-300ep", 93_835, 4.8, 1e-6, 0.99),
            ("imagenet-r50-1000ep", 312_784, 3.2, 1.5e-6, 0.996),
        ] {
            let config = resolve(name);
            let schedule = Schedule::new(&config, 1_281_167).unwrap();
            assert_eq!((schedule.total().get(), schedule.warmup()), (total, 3_127), "{name}");
            assert!((schedule.peak().0 - peak).abs() < 1e-12, "{name}");
            assert_eq!(config.optimizer.kind, OptimizerKind::Lars);
            assert_eq!(
                (config.optimizer.weight_decay, config.schedule.base_decay),
                (weight_decay, base_decay)
            );
        }
    }

    #[test]
    fn an_ablation_changes_only_augmentations_of_the_300_data_epochs() {
        let baseline = resolve("imagenet-r50-300ep");
        for name in ["no-flip", "no-blur", "no-color", "crop-and-flip", "crop-only"] {
            let ablation = resolve(name);
            assert_ne!(ablation.augment, baseline.augment, "{name}");
            assert_eq!(RunConfig { augment: baseline.augment.clone(), ..ablation }, baseline);
        }
    }

    #[test]
    fn an_ablation_of_the_target_changes_only_the_target_and_holds_its_decay() {
        let baseline = resolve("imagenet-r50-300ep");
        for (name, decay, target_init) in [
            ("target-random", 1.0, TargetInit::Independent),
            ("target-online", 0.0, TargetInit::Copy),
        ] {
            let ablation = resolve(name);
            assert_eq!(ablation.model.target_init, target_init, "{name}");
            let schedule = Schedule::new(&ablation, 1_281_167).unwrap();
            for step in [0, 3_127, 50_000, 93_834] {
                assert_eq!(schedule.plan(Step(step)).0, Decay(decay), "{name}, step {step}");
            }
            let mut restored = ablation;
            restored.model.target_init = baseline.model.target_init;
            restored.schedule.base_decay = baseline.schedule.base_decay;
            restored.schedule.decay_mode = baseline.schedule.decay_mode;
            assert_eq!(restored, baseline, "{name}");
        }
    }

    #[test]
    fn crop_only_leaves_nothing_but_the_crop() {
        let augment = resolve("crop-only").augment;
        let probabilities = [
            augment.flip,
            augment.jitter,
            augment.grayscale,
            augment.blur[0],
            augment.blur[1],
            augment.solarize[0],
            augment.solarize[1],
        ];
        assert_eq!(probabilities, [0.0; 7]);
    }

    #[test]
    fn presets_for_one_machine_run_at_world_1_2_and_3() {
        for name in ["demo", "demo-long", "tiny"] {
            for world in ["1", "2", "3"] {
                let flags = vec![("run.world".to_owned(), world.to_owned())];
                let layers = Layers { preset: Some(name.to_owned()), flags, ..Layers::default() };
                layers.resolve().unwrap();
            }
        }
    }
}
