//! Layering: defaults → preset → file → environment → command line, and every fault at once.
//!
//! ```text
//!  presets/*.toml   --config    LOCKSTEP__…   --set
//!        │             │             │          │
//!        └─── entries: key, value, origin ──────┘
//!                          │  each against the table of keys
//!                          ▼
//!               merged, last one wins ──▶ rules between keys ──▶ RunConfig, origins
//! ```
//!
//! An entry at fault is left out and reported, so that the others are still checked. A rule between
//! keys is skipped if one of its keys is at fault, and all are if a whole layer could not be read:
//! what they would say may only follow from the fault.
//!
//! Not here: reading files, environment and command line (the binaries hand over text), the table
//! of keys and the rules (`validate.rs`).

use std::collections::{BTreeMap, BTreeSet};

use ::config::{Config, ConfigError, File, FileFormat, Map, Source, Value, ValueKind};

use crate::config::RunConfig;
use crate::faults::show;
pub use crate::faults::{ConfigFaults, Fault, Origin};
use crate::presets;
use crate::validate::{self, KEYS, RULES};

/// Start of the environment variables that set a key, as in `LOCKSTEP__SCHEDULE__STEPS=20`.
const VARIABLE_PREFIX: &str = "LOCKSTEP__";
/// Root key of a file, a variable or a flag that names the preset.
const PRESET: &str = "preset";
/// Root key of a preset that names the one it builds on.
const EXTENDS: &str = "extends";

/// What a process was told about its configuration, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// `--preset`; stronger than a `preset` key in the layers below.
    pub preset: Option<String>,
    /// `--config`: its path, for messages, and its TOML text.
    pub file: Option<(String, String)>,
    /// All environment variables; those that don't start with `LOCKSTEP__` are ignored.
    pub env: Vec<(String, String)>,
    /// Dotted key and value of `--set` and of flags for one key, such as `--world`.
    pub flags: Vec<(String, String)>,
}

/// A valid configuration, and what set each of its keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The configuration.
    pub config: RunConfig,
    /// What set each key, by dotted name.
    pub origins: BTreeMap<String, Origin>,
}

/// Text that is not `section.key=value`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not of the form section.key=value, such as schedule.steps=20")]
pub struct AssignmentError(String);

/// Splits the argument of `--set`; made to be a parser of command-line values.
pub fn parse_assignment(text: &str) -> Result<(String, String), AssignmentError> {
    let (key, value) = text.split_once('=').ok_or_else(|| AssignmentError(text.to_owned()))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Layers {
    /// Merges the layers and checks the result.
    pub fn resolve(&self) -> Result<Resolved, ConfigFaults> {
        let mut faults = Vec::new();
        let (preset, given) = self.given(&mut faults);
        let mut entries = embedded(presets::DEFAULTS, &Origin::Default);
        if let Some(entry) = preset {
            match named_preset(&entry) {
                Ok(preset) => entries.extend(preset_entries(preset)),
                Err(fault) => faults.push(fault),
            }
        }
        entries.extend(given);
        merge(entries, faults)
    }

    /// The strongest choice of a preset, and the entries of file, environment and command line.
    fn given(&self, faults: &mut Vec<Fault>) -> (Option<Entry>, Vec<Entry>) {
        let mut entries = Vec::new();
        if let Some((path, text)) = &self.file {
            match parse(text, &Origin::File(path.clone())) {
                Ok(parsed) => entries.extend(parsed),
                Err(fault) => faults.push(fault),
            }
        }
        entries.extend(self.env.iter().filter_map(|(name, value)| variable(name, value)));
        let flag = |(key, value): &(String, String)| assignment(key, value, Origin::CommandLine);
        entries.extend(self.flags.iter().map(flag));
        entries
            .extend(self.preset.iter().map(|name| assignment(PRESET, name, Origin::CommandLine)));

        let (presets, given): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.key == PRESET);
        (presets.into_iter().next_back(), given)
    }
}

/// One value for one key; as a source, it overrides the entries before it.
#[derive(Debug, Clone)]
struct Entry {
    key: String,
    value: Value,
    origin: Origin,
}

impl Source for Entry {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(Map::from_iter([(self.key.clone(), self.value.clone())]))
    }
}

fn variable(name: &str, value: &str) -> Option<Entry> {
    let key = name.strip_prefix(VARIABLE_PREFIX)?.to_lowercase().replace("__", ".");
    Some(assignment(&key, value, Origin::Variable(name.to_owned())))
}

/// An entry from bare text, read as the key wants it: `0.5`, `[0.2, 1.0]`, `true`, resnet18.
fn assignment(key: &str, text: &str, origin: Origin) -> Entry {
    let is_text = validate::find(key).is_none_or(|key| key.kind.is_text());
    let typed = if is_text { None } else { toml_value(text) };
    let value = typed.unwrap_or_else(|| Value::from(text));
    Entry { key: key.to_owned(), value, origin }
}

fn toml_value(text: &str) -> Option<Value> {
    let mut table = File::from_str(&format!("value = {text}"), FileFormat::Toml).collect().ok()?;
    // A line break in the text may have started another key.
    if table.len() == 1 { table.remove("value") } else { None }
}

fn parse(text: &str, origin: &Origin) -> Result<Vec<Entry>, Fault> {
    let table = File::from_str(text, FileFormat::Toml).collect().map_err(|error| {
        // `cause` alone has line, column and the line itself; the rest would repeat the path.
        let problem = if let ConfigError::FileParse { cause, .. } = error {
            cause.to_string()
        } else {
            error.to_string()
        };
        Fault::Syntax { origin: origin.clone(), problem: problem.trim_end().to_owned() }
    })?;
    Ok(flatten(&table, origin))
}

/// Entries of nested tables, by name.
fn flatten(table: &Map<String, Value>, origin: &Origin) -> Vec<Entry> {
    let mut entries = Vec::new();
    collect_entries("", table, origin, &mut entries);
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    entries
}

fn collect_entries(
    prefix: &str,
    table: &Map<String, Value>,
    origin: &Origin,
    entries: &mut Vec<Entry>,
) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        // An empty table is an entry too, or else nobody would hear of a section that isn't one.
        if let ValueKind::Table(inner) = &value.kind
            && (is_section(&key) || !inner.is_empty())
        {
            collect_entries(&format!("{key}."), inner, origin, entries);
        } else {
            let (value, origin) = (value.clone(), origin.clone());
            entries.push(Entry { key, value, origin });
        }
    }
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.split('.').next() == Some(name))
}

fn named_preset(entry: &Entry) -> Result<&'static presets::Preset, Fault> {
    let name = entry.value.clone().into_string().unwrap_or_default();
    presets::find(&name).ok_or_else(|| Fault::UnknownPreset {
        value: show(&entry.value.kind),
        origin: entry.origin.clone(),
        known: presets::presets().iter().map(|preset| preset.name).collect::<Vec<_>>().join(", "),
    })
}

/// Entries of a preset, after those of the presets that it extends.
fn preset_entries(preset: &presets::Preset) -> Vec<Entry> {
    let (extends, own): (Vec<_>, Vec<_>) = embedded(preset.toml, &Origin::Preset(preset.name))
        .into_iter()
        .partition(|entry| entry.key == EXTENDS);
    let base = |entry| preset_entries(named_preset(entry).expect("a test resolves every preset"));
    let mut entries: Vec<_> = extends.iter().flat_map(base).collect();
    entries.extend(own);
    entries
}

fn embedded(text: &str, origin: &Origin) -> Vec<Entry> {
    parse(text, origin).expect("a test resolves every preset")
}

/// What set a key, and to what, as TOML.
type Settings = BTreeMap<String, (String, Origin)>;

/// Configuration of entries, weakest first, unless there is a fault in them or already.
fn merge(entries: Vec<Entry>, mut faults: Vec<Fault>) -> Result<Resolved, ConfigFaults> {
    let mut good = Vec::new();
    let mut settings = Settings::new();
    let mut at_fault = BTreeSet::new();
    for entry in entries {
        if let Some(fault) = check(&entry) {
            if let Fault::UnknownKey { nearest: Some(meant), .. } = fault {
                at_fault.insert(meant.to_owned());
            }
            faults.push(fault);
            at_fault.insert(entry.key);
        } else {
            let setting = (show(&entry.value.kind), entry.origin.clone());
            settings.insert(entry.key.clone(), setting);
            good.push(entry);
        }
    }
    let absent = |key: &&str| !settings.contains_key(*key) && !at_fault.contains(*key);
    let missing = KEYS.iter().map(|key| key.name).filter(absent);
    faults.extend(missing.map(|key| Fault::Missing { key }));

    if settings.len() < KEYS.len() {
        return Err(ConfigFaults(faults));
    }
    let config: RunConfig =
        Config::builder().add_source(good).build().and_then(Config::try_deserialize).expect(
            "every key is there and passed the table, which a test compares with the types",
        );
    // A layer that wasn't read may have set any of the keys.
    if faults.iter().all(Fault::is_about_one_key) {
        faults.extend(conflicts(&config, &settings, &at_fault));
    }
    if !faults.is_empty() {
        return Err(ConfigFaults(faults));
    }
    let origins = settings.into_iter().map(|(key, (_, origin))| (key, origin)).collect();
    Ok(Resolved { config, origins })
}

/// Rules that `config` breaks, except those about a key at fault: its value isn't the one meant.
fn conflicts(config: &RunConfig, settings: &Settings, at_fault: &BTreeSet<String>) -> Vec<Fault> {
    let party = |key: &&'static str| {
        let (value, origin) = settings[*key].clone();
        (*key, value, origin)
    };
    RULES
        .iter()
        .filter(|rule| !rule.keys.iter().any(|key| at_fault.contains(*key)))
        .filter(|rule| !(rule.holds)(config))
        .map(|rule| Fault::Conflict {
            values: rule.keys.iter().map(party).collect(),
            rule: rule.sentence,
        })
        .collect()
}

fn check(entry: &Entry) -> Option<Fault> {
    let origin = entry.origin.clone();
    let Some(key) = validate::find(&entry.key) else {
        let nearest = validate::nearest(&entry.key);
        return Some(Fault::UnknownKey { key: entry.key.clone(), origin, nearest });
    };
    (!key.kind.accepts(&entry.value.kind)).then(|| Fault::Value {
        key: key.name,
        value: show(&entry.value.kind),
        origin,
        range: key.kind.range(),
        meaning: key.meaning,
    })
}

/// Configuration of a JSON object that sets every key.
pub(crate) fn resolve_message(json: &str) -> Result<RunConfig, ConfigFaults> {
    let entries = serde_json::from_str::<Map<String, Value>>(json)
        .map(|table| flatten(&table, &Origin::Message))
        .map_err(|error| {
            let problem = error.to_string();
            ConfigFaults(vec![Fault::Syntax { origin: Origin::Message, problem }])
        })?;
    merge(entries, Vec::new()).map(|resolved| resolved.config)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "a value must arrive bit by bit")]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn file(text: &str) -> Layers {
        Layers { file: Some(("run.toml".to_owned(), text.to_owned())), ..Layers::default() }
    }

    fn complaints(layers: &Layers) -> Vec<String> {
        layers.resolve().unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn with_nothing_given_all_values_are_the_defaults() {
        let resolved = Layers::default().resolve().unwrap();
        assert_eq!(resolved.config.schedule.global_batch, 4096);
        assert!(resolved.origins.values().all(|origin| *origin == Origin::Default));
    }

    #[test]
    fn the_later_layer_wins_and_is_named_as_the_origin() {
        let mut layers = Layers::default();
        let mut last_step = |change: &dyn Fn(&mut Layers)| {
            change(&mut layers);
            let resolved = layers.resolve().unwrap();
            (resolved.config.schedule.steps, resolved.origins["schedule.steps"].to_string())
        };
        assert_eq!(last_step(&|_| ()), (0, "default".to_owned()));
        let preset = last_step(&|layers| layers.preset = Some("tiny".to_owned()));
        assert_eq!(preset, (20, "preset tiny".to_owned()));
        let file = last_step(&|layers| {
            layers.file = Some(("run.toml".to_owned(), "schedule.steps = 21".to_owned()));
        });
        assert_eq!(file, (21, "run.toml".to_owned()));
        let variable =
            last_step(&|layers| layers.env = pairs(&[("LOCKSTEP__SCHEDULE__STEPS", "22")]));
        assert_eq!(variable, (22, "environment LOCKSTEP__SCHEDULE__STEPS".to_owned()));
        let flag = last_step(&|layers| layers.flags = pairs(&[("schedule.steps", "23")]));
        assert_eq!(flag, (23, "command line".to_owned()));
    }

    #[test]
    fn a_file_or_a_variable_may_name_the_preset_and_the_flag_is_stronger() {
        let mut layers = file("preset = \"demo\"\n[run]\nworld = 2");
        let id = |layers: &Layers| layers.resolve().unwrap().config.run.id;
        assert_eq!(id(&layers), "demo");
        layers.env = pairs(&[("LOCKSTEP__PRESET", "tiny")]);
        assert_eq!(id(&layers), "tiny");
        layers.preset = Some("demo-long".to_owned());
        assert_eq!(id(&layers), "demo-long");
        assert_eq!(layers.resolve().unwrap().config.run.world, 2);
    }

    #[test]
    fn text_from_environment_and_flags_is_read_as_the_key_wants_it() {
        let layers = Layers {
            env: pairs(&[
                ("LOCKSTEP__AUGMENT__BLUR", "[0.2, 1]"),
                ("LOCKSTEP__PROBE__ENABLED", "false"),
                ("LOCKSTEP__RUN__ID", "2024"),
                ("PATH", "ignored"),
            ]),
            flags: pairs(&[("model.arch", "resnet18"), ("model.width", "1")]),
            ..Layers::default()
        };
        let config = layers.resolve().unwrap().config;
        assert_eq!(config.augment.blur, [0.2, 1.0]);
        assert!(!config.probe.enabled);
        assert_eq!(config.run.id, "2024");
        assert_eq!(config.model.arch, crate::config::Arch::Resnet18);
        assert_eq!(config.model.width, 1.0);
    }

    #[test]
    fn a_value_out_of_range_is_reported_with_key_value_origin_range_and_meaning() {
        assert_eq!(
            complaints(&file("[schedule]\nglobal_batch = 0")),
            [
                "`schedule.global_batch` = 0 from run.toml: must be a whole number from 2 to 1048576; \
              it is the number of images per optimizer step over all ranks (N)"
            ]
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_reported() {
        for (text, complaint) in [
            ("run.world = \"two\"", "`run.world` = \"two\" from run.toml: must be a whole number"),
            ("run.world = 2.0", "`run.world` = 2.0 from run.toml"),
            ("run.seed = -1", "`run.seed` = -1 from run.toml"),
            ("run.id = 7", "`run.id` = 7 from run.toml"),
            ("run.id = \"a b\"", "must be 1 to 64 of the characters"),
            ("model.arch = \"vit\"", "must be one of resnet18, "),
            ("probe.enabled = 1", "must be true or false"),
            ("augment.blur = 1.0", "must be a list of 2 numbers, each from 0.0 to 1.0"),
            ("augment.blur = [1.0]", "`augment.blur` = [1.0] from run.toml"),
            ("augment.blur = [0, \"a\"]", "`augment.blur` = [0, \"a\"] from run.toml"),
            ("schedule.base_learning_rate = nan", "`schedule.base_learning_rate` = NaN"),
            ("schedule.base_learning_rate = inf", "`schedule.base_learning_rate` = inf"),
            ("run.world.many = 3", "`run.world.many` from run.toml: no such key"),
            ("model = 3", "`model` from run.toml: no such key"),
            ("[modle]", "`modle` from run.toml: no such key"),
        ] {
            let found = complaints(&file(text));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(complaint), "{found:?}");
        }
    }

    #[test]
    fn an_unknown_key_is_reported_with_the_one_that_was_meant() {
        let layers = Layers {
            env: pairs(&[("LOCKSTEP__SCHEDULE__GLOBALBATCH", "8")]),
            flags: pairs(&[("world", "2")]),
            ..Layers::default()
        };
        assert_eq!(
            complaints(&layers),
            [
                "`schedule.globalbatch` from environment LOCKSTEP__SCHEDULE__GLOBALBATCH: no such \
                 key; did you mean `schedule.global_batch`?",
                "`world` from command line: no such key; did you mean `run.world`?",
            ]
        );
    }

    #[test]
    fn an_unknown_preset_lists_the_presets() {
        let found = complaints(&Layers { preset: Some("dmeo".to_owned()), ..Layers::default() });
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with(
            "`preset` = \"dmeo\" from command line: no such preset; choose one of imagenet-r50-1000ep, "
        ));
        assert!(complaints(&file("preset = 3"))[0].contains("`preset` = 3 from run.toml"));
    }

    #[test]
    fn broken_toml_is_reported_with_line_and_column() {
        for (text, place) in [
            ("[run]\nworld = = 2", "line 2, column 9"),
            ("[run]\nworld = 1\nworld = 2", "line 3, column 1"),
            ("[run", "line 1, column 5"),
        ] {
            let found = complaints(&file(text));
            assert!(
                found[0].starts_with("run.toml can't be read: ") && found[0].contains(place),
                "{found:?}"
            );
        }
    }

    #[test]
    fn values_that_do_not_fit_together_are_reported_with_both_origins() {
        for (text, keys) in [
            (
                "data.lanes = 100",
                "`data.lanes` = 100 (run.toml) and `schedule.global_batch` = 4096 (default)",
            ),
            ("run.world = 257", "`data.lanes` = 256 (default) and `run.world` = 257 (run.toml)"),
            ("run.min_world = 2", "`run.min_world` = 2 (run.toml) and `run.world` = 1 (default): "),
            (
                "run.world = 3\nrun.max_world = 2",
                "`run.max_world` = 2 (run.toml) and `run.world` = 3",
            ),
            (
                "data.eval_resize = 200",
                "`data.eval_resize` = 200 (run.toml) and `data.image_size` = 224",
            ),
            ("knn.samples = 20", "`knn.k` = 20 (default) and `knn.samples` = 20 (run.toml)"),
            (
                "control.lease_ms = 1000",
                "`control.lease_ms` = 1000 (run.toml) and `control.heartbeat_ms` = 500",
            ),
            ("augment.crop_area = [1.0, 0.5]", "`augment.crop_area` = [1.0, 0.5] (run.toml): "),
            ("augment.crop_ratio = [2, 1]", "`augment.crop_ratio` = [2, 1] (run.toml): "),
            ("augment.blur_sigma = [2.0, 0.1]", "`augment.blur_sigma` = [2.0, 0.1] (run.toml): "),
        ] {
            let found = complaints(&file(text));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(keys), "{found:?}");
        }
    }

    #[test]
    fn values_at_the_ends_of_their_ranges_are_taken() {
        for text in [
            "run.world = 256",
            "run.seed = 9223372036854775807",
            "data.eval_resize = 224",
            "knn.samples = 21",
            "control.lease_ms = 1001",
            "optimizer.momentum = 0.0",
            "augment.crop_area = [1.0, 1.0]",
            "schedule.data_epochs = 1e-9",
        ] {
            file(text).resolve().unwrap_or_else(|faults| panic!("{text}: {faults}"));
        }
        for text in
            ["optimizer.momentum = 1.0", "augment.crop_area = [0.0, 1.0]", "run.world = 4097"]
        {
            assert_eq!(complaints(&file(text)).len(), 1, "{text}");
        }
    }

    #[test]
    fn all_faults_are_reported_at_once_and_none_that_only_follows_from_another() {
        let layers = Layers {
            file: Some(("run.toml".to_owned(), "[data]\nlanes = 0\nimage_szie = 512".to_owned())),
            env: pairs(&[("LOCKSTEP__RUN__WORLD", "0")]),
            flags: pairs(&[("augment.crop_area", "[0.9, 0.1]"), ("data.eval_resize", "100")]),
            ..Layers::default()
        };
        let faults = layers.resolve().unwrap_err();
        let keys = ["data.image_szie", "data.lanes", "run.world", "augment.crop_area"];
        assert_eq!(faults.0.len(), keys.len(), "{faults}");
        for (fault, key) in faults.0.iter().zip(keys) {
            assert!(fault.to_string().starts_with(&format!("`{key}`")), "{fault}");
        }
        assert!(
            faults.to_string().starts_with("4 faults in the configuration\n  `data.image_szie`")
        );
    }

    #[test]
    fn a_layer_that_cannot_be_read_does_not_hide_faults_of_other_layers() {
        let mut layers = file("[run");
        layers.preset = Some("nothing".to_owned());
        // Only the first is a fault for sure: the file may have set lanes that divide 100.
        layers.flags = pairs(&[("run.world", "0"), ("schedule.global_batch", "100")]);
        let found = complaints(&layers);
        assert_eq!(found.len(), 3, "{found:?}");
        for (fault, start) in found.iter().zip(["run.toml can't", "`preset`", "`run.world`"]) {
            assert!(fault.starts_with(start), "{fault}");
        }
    }

    #[test]
    fn an_assignment_is_a_key_and_a_value() {
        let assignment = parse_assignment("run.id = a=b").unwrap();
        assert_eq!(assignment, ("run.id".to_owned(), "a=b".to_owned()));
        let error = parse_assignment("run.world").unwrap_err().to_string();
        assert!(error.starts_with("`run.world` is not of the form section.key=value"), "{error}");
    }
}
