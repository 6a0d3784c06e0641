//! The page: parts of HTML, put together.

use lockstep_proto::config::{Arch, RunConfig};

use crate::commands::output::{count, grouped, percent};
use crate::report::chart::significant;
use crate::report::curves;
use crate::report::pictures::{Neighbours, Pair, Picture, Tile, described};
use crate::report::steps::StepLine;

const STYLE: &str = include_str!("style.css");

/// kNN accuracies, 0 to 1, and how they were measured.
#[derive(Debug, Clone, Copy)]
pub struct Accuracies {
    /// Of the encoder with its initial weights.
    pub untrained: f64,
    /// Of the pixels themselves.
    pub raw_pixels: f64,
    /// Of the trained encoder.
    pub trained: f64,
    /// Neighbours that voted.
    pub k: u32,
    /// T of their weights.
    pub temperature: f64,
    /// Images with known labels.
    pub bank: u64,
    /// Images whose labels were guessed.
    pub queries: u64,
}

impl Accuracies {
    /// Points of percent that training gained.
    pub fn gain(&self) -> f64 {
        100.0 * (self.trained - self.untrained)
    }
}

/// Everything that the page shows.
#[derive(Debug)]
pub struct Report<'a> {
    /// Heading.
    pub title: &'a str,
    /// Where the images come from and under which licence.
    pub license: Option<&'a str>,
    /// What the run computed.
    pub config: &'a RunConfig,
    /// Images in the training set.
    pub samples: u64,
    /// Names by label; a label without a name is shown as its number.
    pub classes: &'a [String],
    /// What came out.
    pub accuracies: Accuracies,
    /// Optimizer steps behind the weights that were measured.
    pub trained_steps: u64,
    /// How it went.
    pub steps: &'a [StepLine],
    /// Views of some images.
    pub pairs: &'a [Pair],
    /// Neighbours of some images.
    pub neighbours: &'a [Neighbours],
}

impl Report<'_> {
    /// The whole file.
    pub fn html(&self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
            title = escaped(self.title),
            body = [
                self.header(),
                self.headline(),
                section("How it went", &self.lead_of_curves(), &self.curves()),
                section("What the network was shown", &self.lead_of_pairs(), &self.pairs()),
                section("What it finds alike", &Self::lead_of_neighbours(), &self.neighbours()),
                section("The run", "", &self.facts()),
                self.footer(),
            ]
            .concat(),
        )
    }

    fn header(&self) -> String {
        let model = &self.config.model;
        format!(
            "<header>\n<p class=\"eyebrow\">Lockstep · run <b>{}</b></p>\n<h1>{}</h1>\n\
             <p class=\"lead\">BYOL without labels: {} at width {}, {} images, {} of {}.</p>\n</header>\n",
            escaped(&self.config.run.id),
            escaped(self.title),
            arch(model.arch),
            model.width,
            grouped(self.samples),
            count(self.trained_steps, "step"),
            self.config.schedule.global_batch,
        )
    }

    fn headline(&self) -> String {
        let Accuracies { untrained, raw_pixels, trained, k, temperature, bank, queries } =
            self.accuracies;
        let gain = self.accuracies.gain();
        let bars = [
            bar("Trained encoder", trained, "trained"),
            bar("Untrained encoder", untrained, "plain"),
            bar("Raw pixels", raw_pixels, "plain"),
        ];
        format!(
            "<section class=\"headline\">\n<div class=\"figure\"><p class=\"label\">kNN accuracy, trained</p>\
             <p class=\"big\">{big}<span>%</span></p>\
             <p class=\"gain {sign}\">{gain:+.2} points over the untrained encoder</p></div>\n\
             <div class=\"bars\">\n{bars}<p class=\"note\">Top-1 accuracy of a vote of the {k} nearest of {bank} training \
             images, for {queries} test images (cosine, T = {t}). Labels are used for these figures only.</p></div>\n</section>\n",
            big = format_args!("{:.2}", 100.0 * trained),
            sign = if gain >= 0.0 { "up" } else { "down" },
            bars = bars.concat(),
            t = temperature,
            bank = grouped(bank),
            queries = grouped(queries),
        )
    }

    fn lead_of_curves(&self) -> String {
        let worlds: std::collections::BTreeSet<_> =
            self.steps.iter().filter_map(|step| step.generation).collect();
        match worlds.len() {
            0 | 1 => {
                "One point per optimizer step; all workers report the same figures.".to_owned()
            }
            worlds => format!(
                "One point per optimizer step. {worlds} worlds took turns; dashed lines mark where \
                 a new one went on."
            ),
        }
    }

    fn curves(&self) -> String {
        format!("<div class=\"charts\">\n{}</div>\n", curves::figures(self.steps, self.config))
    }

    fn lead_of_pairs(&self) -> String {
        format!(
            "Images of the first step, as stored, and the two views that seed {} made of each. The \
             frames in the original show the crops: <span class=\"k1\">view 1</span>, \
             <span class=\"k2\">view 2</span>.",
            self.config.run.seed
        )
    }

    fn pairs(&self) -> String {
        let cards: String = self.pairs.iter().map(pair).collect();
        format!("<div class=\"pairs\">\n{cards}</div>\n")
    }

    fn lead_of_neighbours() -> String {
        "Test images, and the training images whose representations are nearest, best first. \
         <span class=\"hit\">✓ same class</span>, <span class=\"miss\">✗ another</span>."
            .to_owned()
    }

    fn neighbours(&self) -> String {
        let rows: String = self.neighbours.iter().map(|row| self.row(row)).collect();
        format!("<div class=\"rows\">\n{rows}</div>\n")
    }

    fn row(&self, row: &Neighbours) -> String {
        let tiles: Vec<String> = row
            .found
            .iter()
            .map(|(tile, cosine)| {
                let (class, mark) =
                    if tile.label == row.query.label { ("hit", "✓") } else { ("miss", "✗") };
                let caption = format!("{mark} {}", self.class(tile));
                format!(
                    "<li class=\"{class}\" title=\"cosine {cosine:.3}\">{}<span>{caption}</span></li>",
                    image(&tile.picture, &caption)
                )
            })
            .collect();
        let name = self.class(&row.query);
        format!(
            "<div class=\"row\"><div class=\"query\">{}<span>{name}</span></div><ol>{}</ol></div>\n",
            image(&row.query.picture, &name),
            tiles.concat()
        )
    }

    fn class(&self, tile: &Tile) -> String {
        let named = self.classes.get(tile.label as usize);
        named.map_or_else(|| tile.label.to_string(), |name| escaped(name))
    }

    fn facts(&self) -> String {
        let rows: Vec<String> = self
            .fact_rows()
            .into_iter()
            .map(|(name, value)| {
                format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escaped(&value))
            })
            .collect();
        let config =
            serde_json::to_string_pretty(self.config).expect("a configuration is plain data");
        format!(
            "<dl class=\"facts\">\n{}</dl>\n<details><summary>Whole configuration</summary>\
             <pre>{}</pre></details>\n",
            rows.concat(),
            escaped(&config)
        )
    }

    fn fact_rows(&self) -> Vec<(&'static str, String)> {
        let RunConfig { run, model, data, schedule, .. } = self.config;
        let last = self.steps.last();
        let mut rows = vec![
            ("Encoder", format!("{}, width {}", arch(model.arch), model.width)),
            ("Heads", format!("{} hidden, {} out", model.projector_hidden, model.projection_dim)),
            (
                "Images",
                format!("{}, {} × {}", grouped(self.samples), data.image_size, data.image_size),
            ),
            ("Global batch N", schedule.global_batch.to_string()),
            ("Optimizer steps", grouped(self.trained_steps)),
            ("Seed", run.seed.to_string()),
            ("Workers", run.world.to_string()),
        ];
        if let Some(seconds) = last.and_then(|step| step.seconds) {
            rows.push(("Time", duration(seconds)));
        }
        let rate = median(self.steps, |step| step.images_per_second);
        rows.extend(
            rate.map(|rate| ("Images per second", format!("{} (median)", significant(rate)))),
        );
        let wait = median(self.steps, |step| step.data_wait);
        rows.extend(wait.map(|wait| ("Waiting for data", format!("{} (median)", percent(wait)))));
        rows
    }

    fn footer(&self) -> String {
        let license = self.license.map(|text| format!("<p>Images: {}</p>", escaped(text)));
        format!(
            "<footer>{}<p>Method: Grill et al. 2020, “Bootstrap your own latent”, arXiv:2006.07733. \
             kNN: Wu et al. 2018, arXiv:1805.01978.</p></footer>\n",
            license.unwrap_or_default()
        )
    }
}

fn section(title: &str, lead: &str, body: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n<p class=\"lead\">{lead}</p>\n{body}</section>\n")
}

fn bar(name: &str, share: f64, class: &str) -> String {
    format!(
        "<div class=\"bar {class}\"><span>{name}</span><i><b style=\"width:{width:.2}%\"></b></i>\
         <em>{value}</em></div>\n",
        width = 100.0 * share,
        value = percent(share),
    )
}

fn pair(pair: &Pair) -> String {
    let (width, height) = pair.sides;
    let crops: Vec<String> = pair
        .views
        .iter()
        .enumerate()
        .map(|(index, (params, _))| {
            let crop = params.crop;
            format!(
                "<rect class=\"k{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
                index + 1,
                crop.left,
                crop.top,
                crop.width,
                crop.height
            )
        })
        .collect();
    let [one, two] = &pair.views;
    format!(
        "<article><div class=\"trio\"><div class=\"original\">{original}<svg viewBox=\"0 0 {width} {height}\" \
         preserveAspectRatio=\"none\" aria-hidden=\"true\">{crops}</svg></div>{view_one}{view_two}</div>\
         <p><span class=\"k1\">1</span> {made_one}</p><p><span class=\"k2\">2</span> {made_two}</p></article>\n",
        crops = crops.concat(),
        original = image(&pair.original, "original"),
        view_one = image(&one.1, "view 1"),
        view_two = image(&two.1, "view 2"),
        made_one = described(&one.0, pair.sides),
        made_two = described(&two.0, pair.sides),
    )
}

fn image(picture: &Picture, alt: &str) -> String {
    let Picture { width, height, uri } = picture;
    format!("<img src=\"{uri}\" width=\"{width}\" height=\"{height}\" alt=\"{alt}\">")
}

fn arch(arch: Arch) -> &'static str {
    match arch {
        Arch::Resnet18 => "ResNet-18",
        Arch::Resnet34 => "ResNet-34",
        Arch::Resnet50 => "ResNet-50",
        Arch::Resnet101 => "ResNet-101",
        Arch::Resnet152 => "ResNet-152",
        Arch::Resnet200 => "ResNet-200",
    }
}

fn median(steps: &[StepLine], value: impl Fn(&StepLine) -> Option<f64>) -> Option<f64> {
    let mut values: Vec<f64> = steps.iter().filter_map(value).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn duration(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {seconds} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

/// Text that HTML shows as it is, in attributes too.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const ACCURACIES: Accuracies = Accuracies {
        untrained: 0.781,
        raw_pixels: 0.854,
        trained: 0.8234,
        k: 20,
        temperature: 0.07,
        bank: 60_000,
        queries: 10_000,
    };

    fn step(number: u64) -> StepLine {
        let text = format!(r#"{{"step":{number},"loss":2.5,"z_std":0.08,"seconds":75.2}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn html(title: &str, steps: &[StepLine]) -> String {
        let report = Report {
            title,
            license: Some("by A & B <MIT>"),
            config: &testing::tiny_config(),
            samples: 60_000,
            classes: &[],
            accuracies: ACCURACIES,
            trained_steps: 2,
            steps,
            pairs: &[],
            neighbours: &[],
        };
        report.html()
    }

    #[test]
    fn the_page_shows_the_figures_and_refers_to_nothing_outside() {
        let page = html("Demo", &[step(1), step(2)]);
        for text in ["82.34<span>%", "+4.24 points", "85.40 %", "60,000", "1 min 15 s"] {
            assert!(page.contains(text), "{text} is missing");
        }
        for outside in ["http://", "https://", "<script", "<link", "url("] {
            assert!(!page.contains(outside), "{outside} in the page");
        }
    }

    #[test]
    fn text_from_outside_cannot_become_markup() {
        let page = html("<b>\"x\" & y", &[step(1)]);
        assert!(page.contains("<h1>&lt;b&gt;&quot;x&quot; &amp; y</h1>"));
        assert!(page.contains("by A &amp; B &lt;MIT&gt;"));
    }

    #[test]
    fn elements_are_closed_in_the_order_they_were_opened() {
        let page = html("Demo", &[step(1), step(2)]);
        let mut open = Vec::new();
        for tag in
            page.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag)
        {
            let name = tag.split_whitespace().next().unwrap().trim_end_matches('/');
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name.to_owned()), "closing {name}"),
                None if tag.ends_with('/') || ["!doctype", "meta", "img"].contains(&name) => {}
                None => open.push(name.to_owned()),
            }
        }
        assert_eq!(open, Vec::<String>::new());
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(9.4), "9 s");
        assert_eq!(duration(372.0), "6 min 12 s");
        assert_eq!(duration(3_720.0), "1 h 2 min");
    }
}
