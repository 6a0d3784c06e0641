//! Where every parameter and running statistic lies in the flat buffers. Pure: no tensors.
//!
//! Online and target share one layout: the target's parameters are the first of the online network's
//! (encoder, then projector), so the moving average is one operation over a prefix. After them come the
//! predictor and the online probe, which only the online side has.

/// Index of a parameter in the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub(crate) usize);

/// What a parameter is; decides its memory order, its initial value and whether LARS adapts it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role {
    /// `[out, in, k, k]`, stored out, k, k, in (channels-last).
    Convolution,
    /// `[out, in]`.
    Linear,
    /// `[out]`, starts at 0.
    Bias,
    /// `[channels]`, starts at this value.
    Gamma(f64),
    /// `[channels]`, starts at 0.
    Beta,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// Name below the network, in torchvision's words: `encoder.layer1.0.conv1.weight`.
    pub name: String,
    /// Logical shape, as torchvision has it.
    pub shape: Vec<i64>,
    /// What it is.
    pub role: Role,
    /// First element in the flat buffer.
    pub offset: usize,
}

impl ParamSpec {
    /// Number of elements.
    ///
    /// # Panics
    ///
    /// If a dimension is negative: never.
    pub fn len(&self) -> usize {
        self.shape.iter().map(|&n| usize::try_from(n).expect("shapes are positive")).product()
    }

    /// Whether the parameter has no elements: never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Inputs that one output sums over.
    pub(crate) fn fan_in(&self) -> i64 {
        self.shape.iter().skip(1).product()
    }

    /// Outputs that one input reaches.
    pub(crate) fn fan_out(&self) -> i64 {
        self.shape[0] * self.shape.iter().skip(2).product::<i64>()
    }
}

/// Running mean and variance of one batch norm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsSpec {
    /// Name of the batch norm: `encoder.layer1.0.bn1`.
    pub name: String,
    /// Channels.
    pub channels: usize,
    /// Means start here in the flat vector, variances `channels` later.
    pub offset: usize,
}

/// The whole list.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    bn_eps: f64,
    params: Vec<ParamSpec>,
    stats: Vec<StatsSpec>,
    len: usize,
    stats_len: usize,
}

/// Parameters start at multiples of this many elements (64 bytes of f32), so that vector loads are aligned.
const ALIGN: usize = 16;

impl Layout {
    /// Nothing laid out yet. `bn_eps`: ε of every batch norm.
    pub(crate) fn new(bn_eps: f64) -> Self {
        Self { bn_eps, ..Self::default() }
    }

    /// ε of every batch norm.
    pub(crate) fn bn_eps(&self) -> f64 {
        self.bn_eps
    }

    /// Appends a parameter.
    pub(crate) fn param(&mut self, name: String, shape: &[i64], role: Role) -> ParamId {
        let spec = ParamSpec { name, shape: shape.to_vec(), role, offset: self.len };
        self.len = (self.len + spec.len()).next_multiple_of(ALIGN);
        self.params.push(spec);
        ParamId(self.params.len() - 1)
    }

    /// Appends a batch norm's running statistics.
    pub(crate) fn stats(&mut self, name: String, channels: usize) -> StatsSpec {
        let spec = StatsSpec { name, channels, offset: self.stats_len };
        self.stats_len += 2 * channels;
        self.stats.push(spec.clone());
        spec
    }

    /// Parameters, in order.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    /// Running statistics, in order.
    pub fn running(&self) -> &[StatsSpec] {
        &self.stats
    }

    /// Elements of the flat parameter buffer, padding included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// Elements of the flat vector of running statistics.
    pub(crate) fn stats_len(&self) -> usize {
        self.stats_len
    }

    /// Length of each parameter up to the next one: what the bucket plan is made of.
    pub(crate) fn strides(&self) -> Vec<usize> {
        let ends = self.params.iter().skip(1).map(|p| p.offset).chain([self.len]);
        self.params.iter().zip(ends).map(|(param, end)| end - param.offset).collect()
    }
}
