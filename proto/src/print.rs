//! A configuration as text: `--print-config`, JSON for the wire, and differences between two.

use std::fmt::Write as _;

use crate::config::RunConfig;
use crate::layers::{self, ConfigFaults, Resolved};

/// Keys, or sections with their dot, that a checkpoint and the run that resumes it must share.
const FIXED_FOR_A_RUN: &[&str] =
    &["run.seed", "model.", "data.", "augment.", "optimizer.kind", "schedule."];

/// A key that two configurations set differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Dotted name.
    pub key: String,
    /// Value here, as TOML.
    pub ours: String,
    /// Value there, as TOML.
    pub theirs: String,
}

impl Resolved {
    /// The configuration as TOML that `--config` reads back, each value with what set it.
    ///
    /// # Panics
    ///
    /// If the configuration was altered by hand to something that TOML can't hold.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut section = String::new();
        for (key, value) in self.config.entries() {
            let (table, name) = key.split_once('.').expect("every key is in a section");
            if table != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                table.clone_into(&mut section);
                writeln!(text, "{gap}[{section}]").expect("strings take all writes");
            }
            let origin = &self.origins[&key];
            writeln!(text, "{name} = {value}  # {origin}").expect("strings take all writes");
        }
        text
    }
}

impl RunConfig {
    /// Dotted key and value as TOML, of every key, in the order of the fields.
    ///
    /// # Panics
    ///
    /// If the configuration was altered by hand to something that TOML can't hold.
    pub fn entries(&self) -> Vec<(String, String)> {
        let text = toml::to_string(self).expect("numbers, words and lists are TOML");
        let mut entries = Vec::new();
        let mut section = "";
        // One line per section and per key: nothing here is nested deeper, no text has a line break.
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
            } else if let Some((key, value)) = line.split_once(" = ") {
                entries.push((format!("{section}.{key}"), value.to_owned()));
            }
        }
        entries
    }

    /// The configuration as a JSON object, for messages and checkpoints.
    ///
    /// # Panics
    ///
    /// Never: numbers, words and lists are JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers, words and lists are JSON")
    }

    /// The configuration that [`RunConfig::to_json`] wrote, checked like one from a file.
    pub fn from_json(json: &str) -> Result<Self, ConfigFaults> {
        layers::resolve_message(json)
    }

    /// Key and value as TOML of all that must be equal for a checkpoint to be resumed.
    ///
    /// World size, rates of reporting and saving, and the pace of the control plane may change.
    pub fn compatibility(&self) -> Vec<(String, String)> {
        let fixed = |key: &str| FIXED_FOR_A_RUN.iter().any(|start| key.starts_with(start));
        self.entries().into_iter().filter(|(key, _)| fixed(key)).collect()
    }

    /// Where [`RunConfig::compatibility`] is not that of `other`.
    pub fn diff(&self, other: &Self) -> Vec<Difference> {
        let pairs = self.compatibility().into_iter().zip(other.compatibility());
        pairs
            .filter(|((_, ours), (_, theirs))| ours != theirs)
            .map(|((key, ours), (_, theirs))| Difference { key, ours, theirs })
            .collect()
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "a value must arrive bit by bit")]
mod tests {
    use proptest::prelude::*;

    use crate::config::RunConfig;
    use crate::layers::{Layers, Resolved};
    use crate::presets::presets;

    fn resolve(preset: Option<&str>, flags: &[(&str, String)]) -> Resolved {
        let owned = |(key, value): &(&str, String)| ((*key).to_owned(), value.clone());
        let flags = flags.iter().map(owned).collect();
        let preset = preset.map(str::to_owned);
        Layers { preset, flags, ..Layers::default() }.resolve().unwrap()
    }

    fn read_back(resolved: &Resolved) -> RunConfig {
        let file = Some(("printed.toml".to_owned(), resolved.to_toml()));
        Layers { file, ..Layers::default() }.resolve().unwrap().config
    }

    #[test]
    fn every_line_says_what_set_the_value() {
        let text = resolve(Some("no-blur"), &[("run.world", "4".to_owned())]).to_toml();
        for line in [
            "[schedule]\n",
            "\nglobal_batch = 4096  # default\n",
            "\ndata_epochs = 300.0  # preset imagenet-r50-300ep\n",
            "\nblur = [0.0, 0.0]  # preset no-blur\n",
            "\nworld = 4  # command line\n",
            "\nmean = [0.485, 0.456, 0.406]  # default\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn every_preset_survives_print_config_and_the_wire() {
        for preset in presets() {
            let resolved = resolve(Some(preset.name), &[]);
            assert_eq!(read_back(&resolved), resolved.config, "{}", preset.name);
            let json = resolved.config.to_json();
            assert_eq!(RunConfig::from_json(&json), Ok(resolved.config));
        }
    }

    #[test]
    fn a_path_with_a_line_break_does_not_break_the_printed_file() {
        let file = Some(("a\nb.toml".to_owned(), "run.world = 3".to_owned()));
        let resolved = Layers { file, ..Layers::default() }.resolve().unwrap();
        assert_eq!(read_back(&resolved).run.world, 3);
    }

    #[test]
    fn a_received_configuration_is_checked_like_a_file() {
        let config = resolve(None, &[]).config;
        let json = config.to_json();
        for (sent, complaint) in [
            (json.replace("\"world\":1", "\"world\":0"), "`run.world` = 0 from message: must be"),
            (json.replace("\"world\":1", "\"world\":null"), "`run.world` = nil from message"),
            (json.replace("\"world\":1", "\"worlds\":1"), "did you mean `run.world`?"),
            (json.replace(",\"world\":1", ""), "`run.world` is missing"),
            (json.replace("\"lanes\":256", "\"lanes\":255"), "`data.lanes` = 255 (message) and"),
            ("{".to_owned(), "line 1"),
            ("[]".to_owned(), "invalid type"),
        ] {
            assert_ne!(sent, json);
            let faults = RunConfig::from_json(&sent).unwrap_err().to_string();
            assert!(faults.contains(complaint), "{faults}");
        }
    }

    #[test]
    fn differences_name_what_a_checkpoint_must_share_and_nothing_else() {
        let ours = resolve(None, &[]).config;
        let theirs = resolve(
            None,
            &[
                ("model.arch", "resnet18".to_owned()),
                ("schedule.steps", "20".to_owned()),
                ("run.world", "2".to_owned()),
                ("knn.k", "200".to_owned()),
                ("checkpoint.every_steps", "7".to_owned()),
                ("optimizer.weight_decay", "0.5".to_owned()),
            ],
        );
        let found: Vec<_> = ours
            .diff(&theirs.config)
            .into_iter()
            .map(|found| (found.key, found.ours, found.theirs))
            .collect();
        let row = |key: &str, ours: &str, theirs: &str| (key.into(), ours.into(), theirs.into());
        assert_eq!(
            found,
            [row("model.arch", "\"resnet50\"", "\"resnet18\""), row("schedule.steps", "0", "20"),]
        );
        assert_eq!(ours.diff(&ours), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_configuration_survives_print_config_and_the_wire(
            id in "[a-zA-Z0-9._-]{1,64}", seed in 0..=i64::MAX,
            rate in f64::MIN_POSITIVE..=1000.0, decay in 0.0..=1.0_f64,
            mean in proptest::array::uniform3(0.0..=1.0_f32), area in 0.001..0.5_f64,
        ) {
            let resolved = resolve(None, &[
                ("run.id", id),
                ("run.seed", seed.to_string()),
                ("schedule.base_learning_rate", format!("{rate:?}")),
                ("schedule.base_decay", format!("{decay:?}")),
                ("data.mean", format!("{mean:?}")),
                ("augment.crop_area", format!("[{area:?}, 1]")),
            ]);
            prop_assert_eq!(resolved.config.data.mean, mean);
            prop_assert_eq!(resolved.config.schedule.base_learning_rate, rate);
            prop_assert_eq!(&read_back(&resolved), &resolved.config);
            prop_assert_eq!(RunConfig::from_json(&resolved.config.to_json()), Ok(resolved.config));
        }
    }
}
