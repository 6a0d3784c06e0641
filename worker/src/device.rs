//! Which device the engine runs on, and why not on a GPU where it does not.
//!
//! The decision is pure; [`Machine::look`] finds the facts. Nothing of CUDA is called to find them but what
//! libtorch does itself: the driver's version is read from `/proc`, so a machine without one needs none.

use std::fmt;

use tch::Device;

use crate::commands::Misuse;

/// Where the NVIDIA kernel module says its version. Containers see that of their host.
const DRIVER: &str = "/proc/driver/nvidia/version";

/// The oldest driver that CUDA 13, which this libtorch is built with, runs on.
///
/// Source: CUDA Toolkit release notes, "Minimum Required Driver Version for CUDA Minor Version Compatibility".
const OLDEST_DRIVER: u32 = 580;

/// What counts for the choice.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Machine {
    /// Whether this program was linked with the CUDA libtorch.
    cuda_build: bool,
    /// Version of the driver, such as `580.65.06`; `None`: no driver is loaded.
    driver: Option<String>,
    /// GPUs that libtorch sees.
    gpus: usize,
    /// `CUDA_VISIBLE_DEVICES`.
    visible: Option<String>,
}

/// Why there is no GPU; displayed as what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Missing {
    Build,
    Driver,
    NewerDriver(String),
    Device { driver: String, visible: Option<String> },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build => f.write_str(
                "this program was built with the CPU libtorch; for GPUs run `make setup TORCH=cuda` and build again",
            ),
            Self::Driver => write!(
                f,
                "no NVIDIA driver is loaded ({DRIVER} is missing); install {OLDEST_DRIVER} or newer, \
                 and give containers their GPUs (`--gpus all`, `nvidia.com/gpu`)"
            ),
            Self::NewerDriver(found) => write!(
                f,
                "the NVIDIA driver is {found}, but the CUDA 13 of this libtorch needs {OLDEST_DRIVER} or newer"
            ),
            Self::Device { driver, visible } => {
                write!(f, "the NVIDIA driver {driver} is loaded but shows this process no GPU; ")?;
                match visible {
                    Some(list) => write!(f, "CUDA_VISIBLE_DEVICES is `{list}`"),
                    None => f.write_str("see what `nvidia-smi -L` says here"),
                }
            }
        }
    }
}

impl Machine {
    fn look() -> Self {
        let version = std::fs::read_to_string(DRIVER).ok();
        Self {
            cuda_build: tch::utils::has_cudart(),
            driver: version.as_deref().map(|text| driver_version(text).unwrap_or(text).to_owned()),
            gpus: usize::try_from(tch::Cuda::device_count()).unwrap_or(0),
            visible: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
        }
    }

    /// Why there is no GPU; asked only where there is none.
    fn missing(&self) -> Missing {
        let major = |version: &str| version.split('.').next()?.parse::<u32>().ok();
        match &self.driver {
            _ if !self.cuda_build => Missing::Build,
            None => Missing::Driver,
            Some(driver) if major(driver).is_some_and(|major| major < OLDEST_DRIVER) => {
                Missing::NewerDriver(driver.clone())
            }
            Some(driver) => {
                Missing::Device { driver: driver.clone(), visible: self.visible.clone() }
            }
        }
    }

    /// `auto`, `cpu` or `cuda:N` for the process with index `local` on its node.
    fn choose(&self, wanted: &str, local: u32) -> Result<Choice, Misuse> {
        match (wanted, wanted.strip_prefix("cuda:").map(str::parse::<usize>)) {
            ("cpu", _) => Ok(Choice::Cpu(None)),
            ("auto", _) => self.of_local_index(local as usize),
            (_, Some(Ok(_))) if self.gpus == 0 => {
                Err(Misuse(format!("no device {wanted}: {}; or use --device cpu", self.missing())))
            }
            (_, Some(Ok(index))) if index < self.gpus => Ok(Choice::Gpu(index)),
            (_, Some(Ok(_))) => Err(Misuse(format!(
                "no device {wanted}: this process sees {} GPU(s), counted from cuda:0{}",
                self.gpus,
                self.visible.as_ref().map_or_else(String::new, |list| format!(
                    ", since CUDA_VISIBLE_DEVICES is `{list}`"
                ))
            ))),
            _ => Err(Misuse(format!("`{wanted}` is no device; give --device auto, cpu or cuda:N"))),
        }
    }

    /// A launcher either shows every process of a node all GPUs, or each its own one.
    fn of_local_index(&self, local: usize) -> Result<Choice, Misuse> {
        match self.gpus {
            0 => Ok(Choice::Cpu(Some(self.missing()))),
            1 => Ok(Choice::Gpu(0)),
            gpus if local < gpus => Ok(Choice::Gpu(local)),
            gpus => Err(Misuse(format!(
                "no GPU for the process with local index {local}: it sees {gpus} GPUs; start {gpus} processes \
                 on this node, or say --device cuda:N where several shall share one"
            ))),
        }
    }
}

/// The choice, and for the CPU why, where a GPU was welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    Cpu(Option<Missing>),
    Gpu(usize),
}

/// The device for `--device WANTED` of the process with index `local` on its node; makes libtorch ready for it.
pub(crate) fn choose(wanted: &str, local: u32) -> Result<Device, Misuse> {
    match Machine::look().choose(wanted, local)? {
        Choice::Cpu(why) => {
            if let Some(why) = why {
                tracing::info!(%why, "using the CPU");
            }
            Ok(Device::Cpu)
        }
        Choice::Gpu(index) => {
            // Shapes are the same in every step, so the search for the fastest convolution pays at once.
            tch::Cuda::cudnn_set_benchmark(true);
            Ok(Device::Cuda(index))
        }
    }
}

/// As it is called in messages and in `--device`.
pub(crate) fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Cpu | Device::Mps | Device::Vulkan => "cpu".into(),
    }
}

/// `580.65.06` of `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 …`, or of the line of the open
/// kernel modules, `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build …`.
fn driver_version(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(gpus: usize) -> Machine {
        let driver = Some("580.65.06".into());
        Machine { cuda_build: true, driver, gpus, visible: None }
    }

    fn refusal(machine: &Machine, wanted: &str, local: u32) -> String {
        machine.choose(wanted, local).unwrap_err().to_string()
    }

    #[test]
    fn each_process_of_a_node_takes_the_gpu_of_its_local_index() {
        assert_eq!(machine(8).choose("auto", 5).unwrap(), Choice::Gpu(5));
        let too_many = refusal(&machine(2), "auto", 2);
        assert!(too_many.contains("local index 2") && too_many.contains("2 GPUs"), "{too_many}");
    }

    #[test]
    fn a_process_that_is_shown_only_its_own_gpu_takes_that() {
        assert_eq!(machine(1).choose("auto", 5).unwrap(), Choice::Gpu(0));
    }

    #[test]
    fn auto_falls_back_to_the_cpu_and_says_what_is_missing() {
        let why = |machine: &Machine| match machine.choose("auto", 0).unwrap() {
            Choice::Cpu(why) => why.unwrap().to_string(),
            Choice::Gpu(index) => panic!("took GPU {index}"),
        };
        let no_gpu = machine(0);
        let cpu_build = Machine { cuda_build: false, ..no_gpu.clone() };
        assert!(why(&cpu_build).contains("make setup TORCH=cuda"));
        let no_driver = Machine { driver: None, ..no_gpu.clone() };
        assert!(why(&no_driver).contains(DRIVER));
        let old_driver = Machine { driver: Some("550.54.15".into()), ..no_gpu.clone() };
        assert!(why(&old_driver).contains("550.54.15") && why(&old_driver).contains("580"));
        let hidden = Machine { visible: Some("-1".into()), ..no_gpu.clone() };
        assert!(why(&hidden).contains("CUDA_VISIBLE_DEVICES is `-1`"));
        assert!(why(&no_gpu).contains("nvidia-smi"));
    }

    #[test]
    fn a_gpu_that_was_asked_for_and_is_not_there_is_refused_with_the_reason() {
        assert_eq!(machine(2).choose("cuda:1", 0).unwrap(), Choice::Gpu(1));
        let beyond = refusal(&machine(2), "cuda:2", 0);
        assert!(beyond.contains("cuda:2") && beyond.contains("sees 2 GPU(s)"), "{beyond}");
        let none = refusal(&Machine { driver: None, ..machine(0) }, "cuda:0", 0);
        assert!(none.contains("no NVIDIA driver") && none.contains("--device cpu"), "{none}");
        for wanted in ["gpu", "cuda", "cuda:x", ""] {
            assert!(refusal(&machine(2), wanted, 0).contains("is no device"), "{wanted}");
        }
    }

    #[test]
    fn the_cpu_is_taken_without_a_word_where_it_was_asked_for() {
        assert_eq!(machine(0).choose("cpu", 3).unwrap(), Choice::Cpu(None));
    }

    #[test]
    fn the_drivers_version_is_found_in_the_lines_of_both_kernel_modules() {
        for line in [
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:13:32 UTC 2025\nGCC version: gcc 12.3.0",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)  Sun Jul 27",
        ] {
            assert_eq!(driver_version(line), Some("580.65.06"));
        }
        assert_eq!(driver_version("something else"), None);
    }
}
